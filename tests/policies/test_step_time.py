from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bros_sglang.policies.step_time import Coefficients, StepShape, StepTimeModel, pairs

TRUE = Coefficients(2e-3, 4e-5, 2e-9, 5e-5, 1e-7, 0.0)


def _random_shape(rng: random.Random) -> StepShape:
    rows = rng.randint(0, 64)
    if rows and rng.random() < 0.6:
        return StepShape(decode_rows=rows, decode_context=rows * rng.randint(50, 400))
    new = rng.randint(1, 1024)
    return StepShape(new, pairs(rng.randint(0, 2000), new), rows, rows * 200)


def _taught(steps: int = 600, noise: float = 0.03, pauses: float = 0.02) -> StepTimeModel:
    rng = random.Random(1)
    model = StepTimeModel()
    for _ in range(steps):
        shape = _random_shape(rng)
        seconds = TRUE.predict(shape) * rng.gauss(1.0, noise)
        model.observe(shape, seconds * 30 if rng.random() < pauses else seconds)
    return model


def test_it_learns_steps_and_shrugs_off_pauses() -> None:
    model = _taught()
    rng = random.Random(2)
    errors = sorted(
        abs(model.predict(shape) / TRUE.predict(shape) - 1)
        for shape in (_random_shape(rng) for _ in range(200))
    )
    assert errors[100] < 0.05
    assert errors[190] < 0.15
    assert 0.0 < model.band(decode_only=False) < 0.2


def test_it_follows_a_machine_that_changes_for_good() -> None:
    model = _taught()
    shape = StepShape(512, pairs(0, 512))
    slower = 3 * TRUE.predict(shape)
    for _ in range(200):
        model.observe(shape, slower)
    assert model.predict(shape) == pytest.approx(slower, rel=0.15)


def test_a_slow_stretch_is_followed_while_it_lasts() -> None:
    model = _taught(pauses=0.0)
    rng = random.Random(3)
    for stretch in (2.0, 1.0):
        errors = []
        for _ in range(60):
            shape = _random_shape(rng)
            seconds = stretch * TRUE.predict(shape)
            errors.append(abs(model.predict(shape) - seconds) / seconds)
            model.observe(shape, seconds)
        assert sorted(errors[30:])[15] < 0.1


def test_steps_that_something_else_lengthens_do_not_bias_the_rest() -> None:
    rng = random.Random(4)
    model = StepTimeModel()
    for _ in range(1500):
        shape = _random_shape(rng)
        disturbed = 1.0 + (rng.random() < 0.2) * rng.expovariate(1.0)
        model.observe(shape, TRUE.predict(shape) * disturbed * rng.gauss(1.0, 0.02))
    shapes = [_random_shape(rng) for _ in range(200)]
    errors = sorted(model.predict(shape) / TRUE.predict(shape) - 1 for shape in shapes)
    assert errors[100] < 0.12  # the mean disturbance is 20 %


def test_a_lone_outlier_moves_nothing() -> None:
    model = _taught(pauses=0.0)
    shape = StepShape(decode_rows=32, decode_context=6400)
    before = model.predict(shape)
    model.observe(shape, 30 * before)
    assert model.predict(shape) == before


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.nan, math.inf, 1e9])
def test_what_is_no_duration_teaches_nothing(seconds: float) -> None:
    model = StepTimeModel()
    before = model.to_json()
    model.observe(StepShape(100, 5000.0), seconds)
    assert model.to_json() == before


def test_a_profile_survives_a_round_trip() -> None:
    model = _taught()
    again = StepTimeModel.from_json(model.to_json())
    shape = StepShape(300, pairs(100, 300), 12, 2400)
    assert again.predict(shape) == pytest.approx(model.predict(shape))


@given(
    st.floats(1e-6, 1e-3),
    st.floats(0, 1e-7),
    st.integers(0, 100_000),
    st.floats(0, 2),
)
def test_the_solved_count_fits_and_one_more_token_does_not(
    per_token: float, per_pair: float, prefix: int, seconds: float
) -> None:
    model = Coefficients(0.0, per_token, per_pair, 0.0, 0.0, 0.0)
    count = model.prefill_tokens_within(seconds, prefix)

    def cost(tokens: int) -> float:
        return per_token * tokens + per_pair * pairs(prefix, tokens)

    assert cost(count) <= seconds * (1 + 1e-6) + 1e-12
    if count < 1 << 30:
        assert cost(count + 1) >= seconds * (1 - 1e-6)
