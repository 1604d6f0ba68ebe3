"""One error root for the whole system. `gateway/web/problems.py` alone maps it to HTTP."""


class GpupingError(Exception):
    """Root of every error that is raised on purpose. Its text is one sentence for a person."""


class SettingsError(GpupingError):
    """A setting cannot be used. The text is name, value and what was expected. Exit code 2."""


class BadMessageError(GpupingError):
    """Bytes from the bus cannot be decoded as the message that was expected."""


class BusError(GpupingError):
    """The bus, or a service on it, did not do what was asked."""


class UnavailableError(BusError):
    """No answer came in time, or no service listens. Asking again may help (HTTP 503)."""


class AgentError(BusError):
    """An agent did not answer, or its answer cannot be decoded (HTTP 504)."""


class BadAnswerError(BusError):
    """A service's answer cannot be decoded: a fault of the system, not of the caller (HTTP 500)."""


class LayoutError(BusError):
    """A stream or consumer is not configured as it must be, or the server cannot provide it."""


class StaleError(BusError):
    """A compare-and-set failed because another writer was first."""


class RefusedError(BusError):
    """A service refused. `code` is an HTTP status, `detail` the reason in one sentence."""

    def __init__(self, code: int, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
