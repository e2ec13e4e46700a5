"""Find a step-time model by what the command line says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bros_sglang.evals.step_time.gpus import gpu_preset
from bros_sglang.evals.step_time.linear import LinearCoefficients, LinearStepTime
from bros_sglang.evals.step_time.roofline import RooflineStepTime
from bros_sglang.evals.step_time.shapes import UnknownPresetError, model_shape

if TYPE_CHECKING:
    from bros_sglang.evals.step_time.step import StepTimeModel

AFFINE_NAME = "affine-llama3-8b-h200"
# Llama-3-8B on one H200 in round numbers: 5.7 ms a pass, 29 µs a prefill token, 30 ns a context token and
# 8 µs a decode row. The load-back cost is its 131,072 bytes of KV per token over 0.8 of PCIe Gen5's 64 GB/s.
AFFINE = LinearStepTime(
    AFFINE_NAME,
    LinearCoefficients(
        prefill_pass_s=5.7e-3,
        decode_pass_s=5.7e-3,
        prefill_token_s=29e-6,
        prefill_context_token_s=30e-9,
        decode_row_s=8e-6,
        decode_context_token_s=30e-9,
        load_back_token_s=131072 / (0.8 * 64e9),
    ),
    {"source": "round numbers of the roofline for Llama-3-8B on H200"},
)
NAMED: dict[str, StepTimeModel] = {AFFINE_NAME: AFFINE}


def step_time_model(step_time: str, *, model: str, gpu: str, tp: int = 1) -> StepTimeModel:
    """Return the model that `--step-time` names: `roofline`, a named preset, or a fitted file.

    Raises:
        UnknownPresetError: no such preset and no such file.
        StepTimeFileError: the file is no step-time file.
    """
    if step_time == "roofline":
        return RooflineStepTime(model_shape(model), gpu_preset(gpu), tp)
    if step_time in NAMED:
        return NAMED[step_time]
    path = Path(step_time)
    if not path.exists():
        raise UnknownPresetError(
            f"unknown step-time model {step_time!r}: use roofline, {', '.join(NAMED)}, "
            "or a file that `bros eval profile` wrote"
        )
    return LinearStepTime.load(path)
