"""OpenAI's own Python client, with every way to name a class: `python -m … URL MODEL`."""

from __future__ import annotations

import sys
from typing import Any

from openai import OpenAI

# How a class is asked for, and the tier that must be reported: none where none was sent.
WAYS: tuple[tuple[str, dict[str, Any], str | None], ...] = (
    ("rt", {"service_tier": "default"}, "default"),
    ("rt", {"extra_body": {"custom_params": {"bros": {"class": "rt", "ttft_ms": 400}}}}, None),
    ("rt", {"extra_headers": {"x-bros-class": "rt", "x-slo-tpot-ms": "100"}}, None),
    ("be", {"service_tier": "flex"}, "flex"),
    ("be", {"extra_body": {"custom_params": {"bros": {"class": "be"}}}}, None),
    ("be", {"extra_headers": {"x-bros-class": "be"}}, None),
)


def main(url: str, model: str) -> None:
    """Send each of `WAYS` twice, streaming and not; exits with what went wrong."""
    client = OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    messages: list[Any] = [{"role": "user", "content": "the people of water"}]
    asked: Any = {"model": model, "messages": messages, "max_tokens": 16, "temperature": 0.0}
    create: Any = client.chat.completions.create
    for _, how, tier in WAYS:
        answer = create(**asked, **how)
        if answer.service_tier != tier:
            raise SystemExit(f"{how}: reported the tier {answer.service_tier!r}, not {tier!r}")
        text = "".join(
            chunk.choices[0].delta.content or ""
            for chunk in create(**asked, **how, stream=True)
            if chunk.choices
        )
        if text != answer.choices[0].message.content:
            raise SystemExit(f"{how}: the stream said {text!r}, not {answer.choices[0].message.content!r}")


if __name__ == "__main__":
    main(*sys.argv[1:])
