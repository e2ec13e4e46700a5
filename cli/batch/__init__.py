"""`bros batch`: work through an offline corpus with best-effort requests."""

from bros_sglang.cli.batch.commands import app

__all__ = ["app"]
