"""Errors as OpenAI's API gives them: a status, a body, and headers that its clients go by."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from starlette.responses import Response


class OpenAIError(NamedTuple):
    """One answer that is an error."""

    status: int
    message: str
    kind: str = "invalid_request_error"  # `type` in the body
    param: str | None = None
    code: str | None = None
    retry_after_s: int | None = None

    def response(self) -> Response:
        """Return the HTTP response."""
        from starlette.responses import JSONResponse

        body = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        headers = None if self.retry_after_s is None else {"Retry-After": str(self.retry_after_s)}
        return JSONResponse({"error": body}, status_code=self.status, headers=headers)
