"""`torch_native` attention that computes only the new rows of a prefill.

SGLang's torch-native extend (`sglang/srt/layers/attention/torch_native_backend.py`, 0.5.23) pads the query
to the whole sequence, so a cached prefix or an earlier chunk saves no attention time. Costs must be
realistic where schedulers are compared: here the query keeps its own length and the causal mask is offset.
"""

from __future__ import annotations

from typing import Any

import torch
from sglang.srt.layers.attention.attention_registry import register_attention_backend
from sglang.srt.layers.attention.torch_native_backend import TorchNativeAttnBackend
from torch.nn.functional import scaled_dot_product_attention


class QueryCroppedAttnBackend(TorchNativeAttnBackend):  # type: ignore[misc] # SGLang is untyped
    """TorchNativeAttnBackend whose extend costs new rows × context, not context × context."""

    def _run_sdpa_forward_extend(
        self,
        query: torch.Tensor,
        output: torch.Tensor,
        k_cache: torch.Tensor,
        v_cache: torch.Tensor,
        req_to_token: torch.Tensor,
        req_pool_indices: torch.Tensor,
        seq_lens: torch.Tensor,
        extend_prefix_lens: torch.Tensor,
        extend_seq_lens: torch.Tensor,
        encoder_lens: torch.Tensor | None = None,
        *,
        scaling: float | None = None,
        enable_gqa: bool = False,
        causal: bool = False,
        is_cross_attn: bool = False,
        sliding_window_size: int | None = None,
    ) -> torch.Tensor:
        """Attend each request's new rows to its whole context.

        Shapes as in the parent: query and output [new tokens, heads, head size], caches [slots, KV heads,
        head size], the rest [requests]. Anything but plain causal self-attention goes to the parent.
        """
        windowed = sliding_window_size is not None and sliding_window_size > -1
        if encoder_lens is not None or is_cross_attn or not causal or windowed:
            return super()._run_sdpa_forward_extend(
                query,
                output,
                k_cache,
                v_cache,
                req_to_token,
                req_pool_indices,
                seq_lens,
                extend_prefix_lens,
                extend_seq_lens,
                encoder_lens,
                scaling=scaling,
                enable_gqa=enable_gqa,
                causal=causal,
                is_cross_attn=is_cross_attn,
                sliding_window_size=sliding_window_size,
            )
        start = 0
        rows = zip(
            req_pool_indices.tolist(),
            extend_prefix_lens.tolist(),
            extend_seq_lens.tolist(),
            strict=True,
        )
        for pool_index, prefix_len, new_len in rows:
            end = start + new_len
            slots = req_to_token[pool_index, : prefix_len + new_len]
            mask = None
            if prefix_len:
                # Row i of the new tokens sits at position prefix_len + i.
                mask = torch.ones(new_len, prefix_len + new_len, dtype=torch.bool).tril_(prefix_len)
            attended = scaled_dot_product_attention(
                query[start:end].transpose(0, 1).unsqueeze(0),
                k_cache[slots].to(query.dtype).transpose(0, 1).unsqueeze(0),
                v_cache[slots].to(query.dtype).transpose(0, 1).unsqueeze(0),
                attn_mask=mask,
                enable_gqa=enable_gqa,
                scale=scaling,
                is_causal=mask is None,
            )
            output[start:end] = attended.squeeze(0).transpose(0, 1)
            start = end
        return output


def register() -> None:
    """Make `--attention-backend torch_native` build the query-cropped backend."""

    @register_attention_backend("torch_native")  # type: ignore[untyped-decorator]
    def create(runner: Any) -> QueryCroppedAttnBackend:
        return QueryCroppedAttnBackend(runner)
