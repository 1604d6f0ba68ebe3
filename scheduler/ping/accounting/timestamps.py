"""Timestamps in whole milliseconds, in which windows are measured. Pure."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


@lru_cache(maxsize=1024)
def milliseconds(timestamp: datetime) -> int:
    """Returns whole milliseconds since 1970, rounded down.

    The pings that are sent together have one timestamp, so most results are known already.
    """
    return (timestamp - _EPOCH) // _MILLISECOND


def moment(milliseconds_since_1970: int) -> datetime:
    """Returns the timestamp of so many milliseconds since 1970."""
    return _EPOCH + milliseconds_since_1970 * _MILLISECOND


def next_whole_millisecond(timestamp: datetime) -> datetime:
    """Returns the first timestamp without microseconds that is not before this one."""
    floor = whole_millisecond(timestamp)
    if floor == timestamp:
        return floor
    return floor + _MILLISECOND


def whole_millisecond(timestamp: datetime) -> datetime:
    """Returns the timestamp without its microseconds."""
    if timestamp.microsecond % 1000 == 0:
        return timestamp
    return timestamp.replace(microsecond=timestamp.microsecond // 1000 * 1000)
