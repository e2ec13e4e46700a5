"""What a run was asked to do; kept in run.json, so that the same command goes on and `retry` needs none."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict

from bros_sglang.cli.batch.request import CHAT_URL

TagMode = Literal["auto", "always", "never"]

# A change in one of these changes answers: a run that has some already is not mixed with others unasked.
RESULT_FIELDS: Final = (
    "input_format",
    "prompt",
    "system",
    "url",
    "parameters",
    "model_name",
    "model",
    "id_field",
)


class RunSettings(BaseModel):
    """Everything but secrets (the API key is taken from the environment or the command line each time)."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    inputs: list[str]
    input_format: str | None = None
    prompt: str | None = None
    system: str | None = None
    url: str = CHAT_URL  # of templated rows
    parameters: dict[str, Any] = {}
    model_name: str | None = None  # what requests ask for
    id_field: str | None = None
    endpoints: list[str] = []
    model: str | None = None  # offline engine
    engine_args: dict[str, Any] = {}
    within_s: float | None = None
    tag: TagMode = "auto"
    strict: bool = False
    max_concurrency: int = 256
    initial_concurrency: int = 16
    fixed_concurrency: int | None = None
    window: int = 4096
    timeout_s: float = 3600.0
    max_attempts: int = 5
    give_up_s: float = 600.0
    max_failures_in_a_row: int = 100
    ordered: bool = False
    to: Literal["parquet"] | None = None
    check_model: bool = True

    def changed_from(self, other: RunSettings) -> list[str]:
        """Name the settings that would change answers."""
        return [name for name in RESULT_FIELDS if getattr(self, name) != getattr(other, name)]
