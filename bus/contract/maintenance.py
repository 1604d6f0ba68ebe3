"""Booking maintenance: time in which a host is pinged and not judged, agreed on ahead of it."""

from datetime import datetime
from typing import Annotated

from msgspec import Meta, Struct

from bus.contract.messages import AgentId, Message, Timestamp, check_timestamps

LABEL_PATTERN = r"^[A-Za-z0-9_.-]{1,64}=.{1,128}$"
Label = Annotated[str, Meta(pattern=LABEL_PATTERN)]
Text = Annotated[str, Meta(min_length=1, max_length=500)]
BookingId = Annotated[str, Meta(pattern=r"^[a-z0-9]{1,32}$")]


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
