"""The one error of live runs that a user can do something about."""


class LiveError(RuntimeError):
    """A server that cannot be started, reached or measured; the message says what to change."""
