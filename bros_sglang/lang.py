"""Tags for SGLang's frontend language: which program, or which part of one, may wait.

    from bros_sglang import lang

    sgl.set_default_backend(lang.RuntimeEndpoint("http://localhost:30000", request_class="rt", ttft_ms=300))

    @sgl.function
    def turn(s, question):
        s += sgl.user(question) + sgl.assistant(sgl.gen("answer"))
        with lang.best_effort():
            s += sgl.user("What is worth remembering?") + sgl.assistant(sgl.gen("memory"))

    with lang.best_effort():
        summarise.run_batch(documents)

The innermost tag counts; it reaches `gen`, `select`, `fork`, streams and `run_batch`. Endpoints of SGLang's
own class are not touched.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Any, Literal, cast

from sglang.lang.backend.runtime_endpoint import RuntimeEndpoint as _RuntimeEndpoint
from sglang.lang.interpreter import StreamExecutor
from sglang.lang.ir import SglExprList
from sglang.utils import http_request

from bros_sglang.request_class import TAG_KEY, Tag, parse_tag
from bros_sglang.tag_sources import as_custom_params, merge

ClassName = Literal["rt", "be"]

# What the code that builds a program says here and now. Programs run in threads of SGLang's: a tag is taken
# along where a program starts (`RuntimeEndpoint.endpoint`) and where an expression is submitted (`_Tagged`).
_said: ContextVar[Tag | None] = ContextVar("bros_said", default=None)
_executing: ContextVar[Tag | None] = ContextVar("bros_executing", default=None)


def _tag(
    request_class: ClassName | None,
    ttft_ms: float | None,
    tpot_ms: float | None,
    deadline_s: float | None = None,
) -> Tag:
    values = {"class": request_class, "ttft_ms": ttft_ms, "tpot_ms": tpot_ms, "deadline_s": deadline_s}
    return parse_tag({TAG_KEY: values})


def _within(inner: Tag | None, outer: Tag | None) -> Tag | None:
    """Return the tag in force: targets of the outer one hold on where the class stays the same."""
    if inner is None or outer is None:
        return inner or outer
    same = inner.request_class in (None, outer.request_class)
    return merge(inner, outer) if same else inner


@contextlib.contextmanager
def _saying(tag: Tag) -> Iterator[None]:
    token = _said.set(_within(tag, _said.get()))
    try:
        yield
    finally:
        _said.reset(token)


def realtime(
    *, ttft_ms: float | None = None, tpot_ms: float | None = None
) -> contextlib.AbstractContextManager[None]:
    """Make what is generated inside real-time; targets left out are the endpoint's or the server's.

    Raises TagError (a ValueError) for a target that is not above 0.
    """
    return _saying(_tag("rt", ttft_ms, tpot_ms))


def best_effort(*, deadline_s: float | None = None) -> contextlib.AbstractContextManager[None]:
    """Make what is generated inside best-effort; `deadline_s`: completion window, seconds from arrival.

    Raises TagError (a ValueError) for a window that is not above 0.
    """
    return _saying(_tag("be", None, None, deadline_s))


def tagged(
    sampling_params: Mapping[str, Any] | None = None,
    *,
    request_class: ClassName | None = None,
    ttft_ms: float | None = None,
    tpot_ms: float | None = None,
    deadline_s: float | None = None,
) -> dict[str, Any]:
    """Return sampling parameters with a tag, for `sglang.Engine.generate`.

    What is left out comes from the `realtime` or `best_effort` block around, if any.
    """
    tag = _within(_tag(request_class, ttft_ms, tpot_ms, deadline_s), _said.get())
    return _with_tag(sampling_params or {}, tag)


def _with_tag(sampling_params: Mapping[str, Any], tag: Tag | None) -> dict[str, Any]:
    if tag is None or tag == Tag():
        return dict(sampling_params)
    custom = {**(sampling_params.get("custom_params") or {}), TAG_KEY: as_custom_params(tag)}
    return {**sampling_params, "custom_params": custom}


class RuntimeEndpoint(_RuntimeEndpoint):  # type: ignore[misc] # SGLang is untyped
    """SGLang's endpoint, with a class and targets for what runs on it."""

    def __init__(
        self,
        base_url: str,
        *args: Any,
        request_class: ClassName | None = None,
        ttft_ms: float | None = None,
        tpot_ms: float | None = None,
        **kwargs: Any,
    ) -> None:
        self._tag: Tag | None = _tag(request_class, ttft_ms, tpot_ms)
        _take_tags_along()
        super().__init__(base_url, *args, **kwargs)

    @property
    def endpoint(self) -> RuntimeEndpoint:
        """This endpoint with the tag of the block around: SGLang asks for it where a program starts."""
        said = _said.get()
        if said is None:
            return self
        bound = copy.copy(self)
        bound._tag = _within(said, self._tag)
        return bound

    def _in_force(self) -> Tag | None:
        return _within(_executing.get(), self._tag)

    def _add_images(self, s: Any, data: dict[str, Any]) -> None:
        # Every request of a program passes here with its complete body.
        super()._add_images(s, data)
        data["sampling_params"] = _with_tag(data["sampling_params"], self._in_force())

    def cache_prefix(self, prefix_str: str) -> None:
        """Compute a common prefix ahead, in the class of the programs that share it."""
        params = _with_tag({"max_new_tokens": 0}, self._in_force())
        body = {"text": prefix_str, "sampling_params": params}
        result = http_request(
            self.base_url + "/generate", json=body, api_key=self.api_key, verify=self.verify
        )
        self._assert_success(result)


class _Tagged(SglExprList):  # type: ignore[misc] # SGLang is untyped
    """An expression and the tag that it was submitted under."""

    def __init__(self, expr: Any, tag: Tag) -> None:
        self._expr = expr
        self._tag = tag
        super().__init__([expr])

    @property
    def expr_list(self) -> Iterator[Any]:
        # The executor loops over this in its own thread: the tag is in force while it executes the item.
        _executing.set(self._tag)
        try:
            yield self._expr
        finally:
            _executing.set(None)

    @expr_list.setter
    def expr_list(self, _value: Any) -> None:
        """SGLang's constructor sets it; the expression is kept above."""


def _take_tags_along() -> None:
    """Wrap `StreamExecutor.submit`, once: an expression for an endpoint of ours takes its tag along."""
    stock = StreamExecutor.submit
    if hasattr(stock, "__bros__"):
        return

    def submit(self: Any, expr: Any) -> None:
        tag = _said.get()
        if tag is not None and isinstance(self.backend, RuntimeEndpoint):
            expr = _Tagged(expr, tag)
        stock(self, expr)

    cast("Any", submit).__bros__ = True
    StreamExecutor.submit = submit
