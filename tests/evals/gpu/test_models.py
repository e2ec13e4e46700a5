"""Models at real shapes from a configuration alone."""

import json
from pathlib import Path

import pytest

from bros_sglang.evals.gpu.models import CONFIGS, kv_bytes_per_token, write_model
from bros_sglang.evals.step_time.shapes import MODELS, model_shape


def test_llama_has_the_shape_that_the_replay_knows(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(CONFIGS["llama3-8b"]), encoding="utf-8")
    read, known = model_shape(str(path)), MODELS["llama3-8b"]
    for field in ("layers", "hidden", "heads", "kv_heads", "head_dim", "intermediate", "vocab", "gated_mlp"):
        assert getattr(read, field) == getattr(known, field)
    assert kv_bytes_per_token("llama3-8b") == known.kv_bytes_per_token == 131_072


@pytest.mark.parametrize("name", CONFIGS)
def test_a_configuration_is_read_by_transformers(name: str, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoTokenizer

    folder = write_model(name, tmp_path / name)
    before = (folder / "tokenizer.json").stat().st_mtime_ns
    write_model(name, folder)  # a second time makes nothing anew
    assert (folder / "tokenizer.json").stat().st_mtime_ns == before
    config = AutoConfig.from_pretrained(folder)
    assert config.num_hidden_layers == CONFIGS[name]["num_hidden_layers"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.decode(tokenizer.encode("the people of the water")) == "the people of the water"
    assert len(tokenizer) <= config.vocab_size
