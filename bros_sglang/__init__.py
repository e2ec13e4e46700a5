"""bros-sglang: real-time and best-effort LLM requests on one SGLang engine (BROS, arXiv 2504.09590)."""

from bros_sglang._version import __version__

__all__ = ["__version__"]
