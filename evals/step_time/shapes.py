"""Shapes of models, as their published configurations give them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path


class UnknownPresetError(ValueError):
    """A model, GPU or step-time name that is neither a preset nor a file."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """A dense decoder-only transformer; sizes are counts, not bytes."""

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    gated_mlp: bool  # three matrices (SwiGLU) instead of two
    tied_embeddings: bool
    source: str
    dtype_bytes: int = 2  # fp16 or bf16 weights and KV

    @property
    def layer_parameters(self) -> int:
        """Parameters in the matrices of all layers (biases and norms, below 0.1 %, left out)."""
        query = self.hidden * self.heads * self.head_dim
        key_value = 2 * self.hidden * self.kv_heads * self.head_dim
        output = self.heads * self.head_dim * self.hidden
        mlp = (3 if self.gated_mlp else 2) * self.hidden * self.intermediate
        return self.layers * (query + key_value + output + mlp)

    @property
    def head_parameters(self) -> int:
        """Parameters of the output projection, which only sampled positions pass through."""
        return self.hidden * self.vocab

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights in memory."""
        embeddings = self.head_parameters * (1 if self.tied_embeddings else 2)
        return (self.layer_parameters + embeddings) * self.dtype_bytes

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of keys and values of one token in all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim * self.dtype_bytes


MODELS: dict[str, ModelShape] = {
    "llama3-8b": ModelShape(
        "llama3-8b", 32, 4096, 32, 8, 128, 14336, 128256, gated_mlp=True, tied_embeddings=False,
        source="meta-llama/Meta-Llama-3-8B config.json",
    ),
    "llama3-70b": ModelShape(
        "llama3-70b", 80, 8192, 64, 8, 128, 28672, 128256, gated_mlp=True, tied_embeddings=False,
        source="meta-llama/Meta-Llama-3-70B config.json",
    ),
    "opt-13b": ModelShape(
        "opt-13b", 40, 5120, 40, 40, 128, 20480, 50272, gated_mlp=False, tied_embeddings=True,
        source="facebook/opt-13b config.json",
    ),
    "opt-30b": ModelShape(
        "opt-30b", 48, 7168, 56, 56, 128, 28672, 50272, gated_mlp=False, tied_embeddings=True,
        source="facebook/opt-30b config.json",
    ),
}  # fmt: skip


def model_shape(name_or_path: str) -> ModelShape:
    """Return a preset by name, or read a Hugging Face `config.json` (or the folder that holds one).

    Raises:
        UnknownPresetError: neither a preset nor a readable configuration of a dense decoder.
    """
    if name_or_path in MODELS:
        return MODELS[name_or_path]
    path = Path(name_or_path)
    if path.is_dir():
        path /= "config.json"
    if not path.is_file():
        raise UnknownPresetError(
            f"unknown model {name_or_path!r}: use one of {', '.join(MODELS)}, or the path of a config.json"
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        hidden = int(config["hidden_size"])
        heads = int(config["num_attention_heads"])
        intermediate = int(config.get("intermediate_size") or config["ffn_dim"])
        return ModelShape(
            name=str(config.get("_name_or_path") or path.parent.name),
            layers=int(config["num_hidden_layers"]),
            hidden=hidden,
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head_dim=int(config.get("head_dim") or hidden // heads),
            intermediate=intermediate,
            vocab=int(config["vocab_size"]),
            gated_mlp="ffn_dim" not in config,
            tied_embeddings=bool(config.get("tie_word_embeddings", False)),
            source=str(path),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnknownPresetError(
            f"{path}: no configuration of a dense decoder ({error!r} is missing or wrong)"
        ) from error
