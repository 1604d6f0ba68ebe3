"""Booking maintenance: time in which a host is pinged and not judged, agreed on ahead of it."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Annotated

from msgspec import Meta, Struct

from bus.contract.labels import Label
from bus.contract.messages import (
    AgentId,
    MaintenanceWindow,
    Message,
    Timestamp,
    check_timestamps,
)
from bus.contract.subjects import END

Text = Annotated[str, Meta(min_length=1, max_length=500)]
BookingId = Annotated[str, Meta(pattern=r"^[a-z0-9]{1,32}" + END)]


class BookRequest(Message, kw_only=True, frozen=True):
    """Asks for maintenance of one agent, or of all that have a label now (`site=FRA`).

    A label is a field of the registered metadata and its value. `author` is the name of the token
    or of the person, `address` where it came from over HTTP; both are for the audit log.
    """

    since: Timestamp
    until: Timestamp
    reason: Text
    author: str = ""
    address: str | None = None
    agent_id: AgentId | None = None
    label: Label | None = None

    def __post_init__(self) -> None:
        check_timestamps(self.since, self.until)
        if (self.agent_id is None) == (self.label is None):
            raise ValueError("expected either agent_id or label")


class CancelRequest(Message, kw_only=True, frozen=True):
    """Ends a booking now, for all its agents. What has passed of it stays excused."""

    booking_id: BookingId
    author: str = ""
    address: str | None = None


class BookingsRequest(Message, kw_only=True, frozen=True):
    """Asks for the bookings that are not over; `past_too` also for those that the entries keep."""

    agent_id: AgentId | None = None
    past_too: bool = False


class Booking(Struct, kw_only=True, frozen=True):
    """One booking and the agents it is for."""

    booking_id: str
    agent_ids: tuple[str, ...]
    since: datetime
    until: datetime
    reason: str
    author: str
    booked_at: datetime | None


class Bookings(Message, kw_only=True, frozen=True):
    """Bookings, the earliest first."""

    bookings: tuple[Booking, ...]


def used_in_month(windows: Iterable[MaintenanceWindow], at: datetime) -> timedelta:
    """Returns how much of the calendar month of `at` the bookings cover (UTC).

    Time that two of them cover counts once.
    """
    begin = month_begin(at)
    return _covered(windows, begin, month_begin(begin + timedelta(days=32)))


def month_begin(at: datetime) -> datetime:
    """Returns the first moment of the month."""
    return at.replace(
        day=1,
        hour=0,
        minute=0,
        second=0,
        microsecond=0,
    )


def _covered(
    windows: Iterable[MaintenanceWindow],
    since: datetime,
    until: datetime,
) -> timedelta:
    """Returns how much of `[since, until)` the bookings cover; time that two cover counts once."""
    covered = timedelta()
    reached = since
    for window in sorted(windows, key=lambda one: one.since):
        begin = max(window.since, reached)
        end = min(window.until, until)
        if begin < end:
            covered += end - begin
            reached = end
    return covered
