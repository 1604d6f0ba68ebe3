"""Timestamps in whole milliseconds, in which windows are measured. Pure."""

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def milliseconds(timestamp: datetime) -> int:
    """Returns whole milliseconds since 1970, rounded down."""
    return (timestamp - _EPOCH) // _MILLISECOND


def whole_millisecond(timestamp: datetime) -> datetime:
    """Returns the timestamp without its microseconds."""
    return timestamp.replace(microsecond=timestamp.microsecond // 1000 * 1000)
