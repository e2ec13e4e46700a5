"""ShareGPT-like lengths from a formula: the default workload, which needs no data file.

Log-normal mixtures for the prompt (the conversation so far, up to 8k) and the answer, fitted to the published
length table of ShareGPT conversations cut at 8,192 tokens (etalon, processed traces): the mean and the
quantiles from p5 to p99 agree within about 20 %. Draws outside the table's range (a prompt and answer over
8,192 tokens, an answer over 1,024) are drawn again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

CONTEXT_TOKENS = 8192
LONGEST_OUTPUT_TOKENS = 1024
# (weight, mean of ln tokens, standard deviation of ln tokens)
PROMPT_MIXTURE = ((0.202, 4.337, 1.221), (0.536, 7.303, 0.716), (0.262, 8.463, 0.297))
OUTPUT_MIXTURE = ((0.262, 4.592, 1.174), (0.573, 6.046, 0.400), (0.165, 6.682, 0.153))


def _draw(rng: np.random.Generator, mixture: tuple[tuple[float, float, float], ...]) -> int:
    component = int(rng.choice(len(mixture), p=[weight for weight, _, _ in mixture]))
    _, mean, deviation = mixture[component]
    return round(float(np.exp(mean + deviation * rng.standard_normal())))


def sharegpt_like(rng: np.random.Generator) -> Iterator[tuple[int, int]]:
    """Yield (prompt tokens, output tokens) without end."""
    while True:
        prompt, output = _draw(rng, PROMPT_MIXTURE), _draw(rng, OUTPUT_MIXTURE)
        if prompt >= 1 and 1 <= output <= LONGEST_OUTPUT_TOKENS and prompt + output <= CONTEXT_TOKENS:
            yield prompt, output


def uniform(
    rng: np.random.Generator, prompt: tuple[int, int], output: tuple[int, int]
) -> Iterator[tuple[int, int]]:
    """Yield lengths drawn uniformly, bounds included. BROS's best-effort load is U(512,1024) / U(32,128)."""
    while True:
        yield int(rng.integers(prompt[0], prompt[1] + 1)), int(rng.integers(output[0], output[1] + 1))
