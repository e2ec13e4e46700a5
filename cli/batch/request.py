"""One request of a batch, from the input to the answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

CHAT_URL: Final = "/v1/chat/completions"
COMPLETIONS_URL: Final = "/v1/completions"
KNOWN_URLS: Final = (CHAT_URL, COMPLETIONS_URL)


@dataclass(slots=True, eq=False)
class BatchRequest:
    """A request that passed the checks. `payload` is its body as JSON, without `custom_params`."""

    place: int  # position in the input
    source: str  # "file:line"
    custom_id: str
    url: str  # one of KNOWN_URLS
    payload: bytes  # a JSON object with at least one field
    prefix_key: bytes  # sorts requests that share a prompt prefix next to each other
    model: str
    custom_params: dict[str, object] | None = None  # the body's own; the tag is merged in on sending
    attempts: int = 0  # that count against the limit
    pushbacks: int = 0  # 429 and 503 so far
