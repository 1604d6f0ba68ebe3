"""One error root for the whole system; `gateway/web/problems.py` is the one place that maps it to HTTP."""


class GpupingError(Exception):
    """Root of every error that we raise on purpose; its text is one sentence made for people."""


class SettingsError(GpupingError):
    """A setting that cannot be used. The text is one line: name, value, what was expected. Exit code 2."""


class BadMessageError(GpupingError):
    """Bytes from the bus that are not the message they should be."""


class BusError(GpupingError):
    """The bus, or what stands behind it, did not do what was asked."""


class UnavailableError(BusError):
    """Nobody answered in time, or nobody listens. Asking again later may help (HTTP 503)."""


class AgentError(BusError):
    """An agent that was asked directly did not answer, or its answer cannot be read (HTTP 504)."""


class BadAnswerError(BusError):
    """A service's answer is not the message it should be: a fault of ours, not the caller's (HTTP 500)."""


class LayoutError(BusError):
    """A stream or consumer exists but is not what we need, or the server cannot give it."""


class StaleError(BusError):
    """A compare-and-set lost: somebody else wrote first."""


class RefusedError(BusError):
    """A service answered, and said no. `code` is an HTTP status, `args[0]` the reason in one sentence."""

    def __init__(self, code: int, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
