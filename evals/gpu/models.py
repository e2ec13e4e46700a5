"""Models at real shapes from a configuration alone: random weights, a tokenizer made on the spot.

    python -m bros_sglang.evals.gpu.models llama3-8b FOLDER

SGLang loads them with `--load-format dummy`. Shapes are those of the published configurations.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

LOAD_DUMMY = ("--load-format", "dummy")


def _config(architecture: str, model_type: str, **sizes: Any) -> dict[str, Any]:
    return {
        "architectures": [architecture],
        "model_type": model_type,
        "hidden_act": "silu",
        "bos_token_id": 0,
        "eos_token_id": 1,
        "torch_dtype": "bfloat16",
        "attention_bias": False,
        "tie_word_embeddings": False,
        "initializer_range": 0.02,
        **sizes,
    }


def _llama(**sizes: Any) -> dict[str, Any]:
    return _config("LlamaForCausalLM", "llama", rms_norm_eps=1e-5, **sizes)


def _qwen3(**sizes: Any) -> dict[str, Any]:
    return _config("Qwen3ForCausalLM", "qwen3", rms_norm_eps=1e-6, use_sliding_window=False, **sizes)


_LLAMA_8B = {
    "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 128256, "rope_theta": 500000.0,
    "max_position_embeddings": 8192,
}  # fmt: skip
_QWEN3_8B = {
    "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36, "num_attention_heads": 32,
    "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936, "rope_theta": 1000000.0,
    "max_position_embeddings": 40960,
}  # fmt: skip
# The vocabulary is larger than the tokenizer's here too, as it is in the real shapes.
_TINY = {
    "hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 32, "vocab_size": 2048, "rope_theta": 10000.0,
    "max_position_embeddings": 8192,
}  # fmt: skip

CONFIGS: dict[str, dict[str, Any]] = {
    "llama3-8b": _llama(**_LLAMA_8B),  # meta-llama/Meta-Llama-3-8B config.json
    "qwen3-8b": _qwen3(**_QWEN3_8B),  # Qwen/Qwen3-8B config.json
    "tiny-llama": _llama(**_TINY),
    "tiny-qwen3": _qwen3(**_TINY),
}


def kv_bytes_per_token(name: str) -> int:
    """Return the bytes of keys and values of one token in all layers, in 16-bit numbers."""
    config = CONFIGS[name]
    return int(2 * config["num_hidden_layers"] * config["num_key_value_heads"] * config["head_dim"] * 2)


def write_model(name: str, folder: Path) -> Path:
    """Write configuration and tokenizer of a model to `folder`, unless they are there; return the folder."""
    from bros_sglang.evals.tiny_model import write_tokenizer

    if not (folder / "tokenizer.json").is_file():
        write_tokenizer(folder)
    (folder / "config.json").write_text(json.dumps(CONFIGS[name], indent=1) + "\n", encoding="utf-8")
    generation = {"bos_token_id": 0, "eos_token_id": 1, "do_sample": False}
    (folder / "generation_config.json").write_text(json.dumps(generation) + "\n", encoding="utf-8")
    return folder


def main(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(CONFIGS)}.")],
    folder: Path,
    json_file: Annotated[Path, typer.Option("--json")],
) -> None:
    """Write a model; name the folder in the JSON file."""
    json_file.write_text(json.dumps({"folder": str(write_model(name, folder))}) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
