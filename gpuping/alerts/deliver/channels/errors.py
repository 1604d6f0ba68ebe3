"""The one error of sending."""

from bus.errors import GpupingError


class SendingError(GpupingError):
    """A target did not take a message. The text has neither its address nor its secret."""
