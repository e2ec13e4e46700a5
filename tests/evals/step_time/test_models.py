from __future__ import annotations

import json
import statistics
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bros_sglang.evals.step_time.gpus import gpu_preset
from bros_sglang.evals.step_time.jitter import JitteredStepTime
from bros_sglang.evals.step_time.linear import LinearCoefficients, LinearStepTime, StepTimeFileError
from bros_sglang.evals.step_time.presets import AFFINE, AFFINE_NAME, step_time_model
from bros_sglang.evals.step_time.roofline import RooflineStepTime
from bros_sglang.evals.step_time.shapes import MODELS, UnknownPresetError, model_shape
from bros_sglang.evals.step_time.step import Step

if TYPE_CHECKING:
    from pathlib import Path


def decode(rows: int, context: int) -> Step:
    return Step(decode_rows=rows, decode_context_tokens=context)


def prefill(new: int, prefix: int = 0) -> Step:
    step = Step()
    step.add_prefill(new, prefix)
    return step


def test_published_sizes() -> None:
    # Model cards: 8.03 B, 70.6 B and 12.85 B parameters; 128 KiB, 320 KiB and 800 KiB of KV per token.
    assert MODELS["llama3-8b"].weight_bytes == pytest.approx(2 * 8.03e9, rel=0.005)
    assert MODELS["llama3-70b"].weight_bytes == pytest.approx(2 * 70.55e9, rel=0.005)
    assert MODELS["opt-13b"].weight_bytes == pytest.approx(2 * 12.85e9, rel=0.005)
    kv = {name: shape.kv_bytes_per_token // 1024 for name, shape in MODELS.items()}
    assert (kv["llama3-8b"], kv["llama3-70b"], kv["opt-13b"]) == (128, 320, 800)


def test_roofline_agrees_with_the_round_numbers_for_llama3_8b_on_h200() -> None:
    roofline = RooflineStepTime(model_shape("llama3-8b"), gpu_preset("h200"))
    for step in (
        decode(1, 1000),
        decode(64, 64_000),
        decode(128, 100_000),
        prefill(2048),
        prefill(512, 4096),
    ):
        assert roofline.step_s(step) == pytest.approx(AFFINE.step_s(step), rel=0.25)


def test_tensor_parallel_divides_the_work_and_adds_collectives() -> None:
    one = RooflineStepTime(model_shape("llama3-70b"), gpu_preset("h200"), 2)
    eight = RooflineStepTime(model_shape("llama3-70b"), gpu_preset("h200"), 8)
    assert eight.step_s(prefill(4096)) < one.step_s(prefill(4096)) / 2.5
    assert eight.step_s(decode(1, 10)) > one.step_s(decode(1, 10)) / 4


@pytest.mark.parametrize(
    ("model", "gpu", "tp"),
    [("llama3-8b", "h200", 1), ("opt-13b", "a100-40g", 1), ("llama3-70b", "a100-80g", 8)],
)
def test_presets_of_the_paper_fit_their_gpus(model: str, gpu: str, tp: int) -> None:
    roofline = RooflineStepTime(model_shape(model), gpu_preset(gpu), tp)
    assert roofline.pool_tokens() > 8_000
    json.dumps(roofline.describe())


def test_a_model_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="raise --tp"):
        RooflineStepTime(model_shape("llama3-70b"), gpu_preset("a100-80g")).pool_tokens()


counts = st.integers(0, 100_000)


@given(counts, counts, counts, counts)
def test_more_work_never_takes_less_time(rows: int, context: int, new: int, prefix: int) -> None:
    roofline = RooflineStepTime(model_shape("llama3-8b"), gpu_preset("h200"))
    for model in (roofline, AFFINE):
        small, large = Step(decode_rows=rows, decode_context_tokens=context), Step()
        large.add_prefill(new + 1, prefix)
        large.decode_rows, large.decode_context_tokens = rows, context
        assert 0 < model.step_s(small) <= model.step_s(large)


def test_load_back_runs_beside_the_computation() -> None:
    step = decode(8, 1000)
    alone_s = AFFINE.step_s(step)
    step.load_back_tokens = 10
    assert AFFINE.step_s(step) == alone_s
    step.load_back_tokens = 100_000
    assert AFFINE.step_s(step) == pytest.approx(100_000 * 131072 / (0.8 * 64e9))


def test_a_saved_model_comes_back(tmp_path: Path) -> None:
    model = LinearStepTime("mine", LinearCoefficients(decode_pass_s=1e-3, decode_row_s=2e-5), {"host": "x"})
    model.save(tmp_path / "mine.json")
    loaded = step_time_model(str(tmp_path / "mine.json"), model="llama3-8b", gpu="h200")
    assert loaded.describe() == model.describe()
    assert loaded.step_s(decode(10, 0)) == pytest.approx(1.2e-3)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("nonsense", "not JSON"),
        ("[]", "no step-time file"),
        ('{"kind": "bros-step-time-linear", "coefficients": {}}', "must be an object"),
        ('{"kind": "bros-step-time-linear", "coefficients": {"speed": 1}}', "unknown coefficient 'speed'"),
        ('{"kind": "bros-step-time-linear", "coefficients": {"decode_row_s": -1}}', "0 or more"),
        (
            '{"kind": "bros-step-time-linear", "coefficients": {"decode_row_s": 0}}',
            "every coefficient is zero",
        ),
    ],
)
def test_a_bad_file_is_named_and_explained(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(StepTimeFileError, match=complaint) as caught:
        LinearStepTime.load(path)
    assert str(path) in str(caught.value)


def test_unknown_names_list_the_known() -> None:
    with pytest.raises(UnknownPresetError, match="llama3-8b"):
        step_time_model("roofline", model="gpt-9", gpu="h200")
    with pytest.raises(UnknownPresetError, match="a100-80g"):
        step_time_model("roofline", model="llama3-8b", gpu="tpu")
    with pytest.raises(UnknownPresetError, match=AFFINE_NAME):
        step_time_model("fast", model="llama3-8b", gpu="h200")


def test_a_hugging_face_configuration_is_a_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps(
            {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 3,
             "intermediate_size": 128, "vocab_size": 1000, "tie_word_embeddings": True}
        )
    )  # fmt: skip
    shape = model_shape(str(tmp_path))
    assert (shape.kv_bytes_per_token, shape.head_dim) == (2 * 3 * 2 * 16 * 2, 16)
    (tmp_path / "config.json").write_text('{"hidden_size": 64}')
    with pytest.raises(UnknownPresetError, match="num_attention_heads"):
        model_shape(str(tmp_path))


def test_jitter_keeps_the_mean_and_repeats() -> None:
    step = decode(10, 1000)
    runs = []
    for _ in range(2):
        model = JitteredStepTime(AFFINE, 0.1, seed=4)
        runs.append([model.step_s(step) / AFFINE.step_s(step) for _ in range(4000)])
    assert runs[0] == runs[1]
    assert sum(runs[0]) / 4000 == pytest.approx(1.0, abs=0.01)
    assert statistics.stdev(runs[0]) == pytest.approx(0.1, abs=0.01)
    with pytest.raises(ValueError, match="below 1"):
        JitteredStepTime(AFFINE, 1.5)
