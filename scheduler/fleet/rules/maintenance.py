"""The rules of maintenance. Pure.

Maintenance is booked by the operator, never by the host, and ahead of its begin, never backwards:
time that has passed is judged as it was. A host may have a monthly budget. Bookings may overlap;
time that two of them cover counts once.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta

from msgspec import Struct
from msgspec.structs import replace

from bus.contract.maintenance import Booking, month_begin, used_in_month
from bus.contract.messages import AgentEntry, MaintenanceWindow
from bus.errors import RefusedError

MAX_KEPT = 200  # of one agent; the oldest that are over are forgotten first
REFUSED = 409  # HTTP's Conflict


class Limits(Struct, frozen=True, kw_only=True):
    """`notice` is the least time before the begin; `monthly` a host's budget, None for no limit."""

    notice: timedelta
    monthly: timedelta | None


def check_times(
    since: datetime,
    until: datetime,
    now: datetime,
    limits: Limits,
) -> None:
    """Raises RefusedError unless the time lies ahead, with the notice that is asked for."""
    if until <= since:
        raise RefusedError(400, "maintenance ends before it begins")
    if since < now:
        raise RefusedError(
            REFUSED, f"maintenance is booked ahead of time: it begins {since:%Y-%m-%d %H:%M:%S} UTC"
        )
    if since < now + limits.notice:
        minutes = limits.notice.total_seconds() / 60
        raise RefusedError(REFUSED, f"maintenance is booked {minutes:g} minutes ahead or earlier")


def booked(
    entry: AgentEntry,
    window: MaintenanceWindow,
    now: datetime,
    limits: Limits,
    open_since: datetime | None = None,
) -> AgentEntry:
    """Returns the entry with one more booking. Raises RefusedError where the budget is exceeded.

    `open_since` is when the host's open window began: the next ping excuses what was booked since.
    """
    windows = [*entry.maintenance, window]
    needed_since = now if open_since is None else min(now, open_since)
    if limits.monthly is not None:
        needed_since = min(needed_since, month_begin(now))  # what the budget was spent on
        month, hours = _most_in_a_month(windows, window)
        budget = limits.monthly.total_seconds() / 3600
        if hours > budget:
            raise RefusedError(
                REFUSED,
                f"{entry.agent_id} would have {hours:g} hours of maintenance in {month};"
                f" its budget is {budget:g}",
            )
    return replace(entry, maintenance=_kept(windows, needed_since))


def cancelled(
    entry: AgentEntry,
    booking_id: str,
    now: datetime,
) -> AgentEntry:
    """Returns the entry without what is still to come of a booking."""
    windows = []
    for window in entry.maintenance:
        if window.booking_id != booking_id or window.until <= now:
            windows.append(window)
        elif window.since < now:
            windows.append(replace(window, until=now))
    return replace(entry, maintenance=tuple(windows))


def bookings(
    entries: Iterable[AgentEntry],
    now: datetime,
    *,
    past_too: bool,
) -> list[Booking]:
    """Returns the bookings of these agents, the earliest first, each with all its agents."""
    found: dict[str, list[str]] = {}
    windows: dict[str, MaintenanceWindow] = {}
    for entry in entries:
        for window in entry.maintenance:
            if window.until <= now and not past_too:
                continue
            found.setdefault(window.booking_id, []).append(entry.agent_id)
            windows[window.booking_id] = window
    listed = []
    for booking_id, agent_ids in found.items():
        window = windows[booking_id]
        listed.append(
            Booking(
                booking_id=booking_id,
                agent_ids=tuple(sorted(agent_ids)),
                since=window.since,
                until=window.until,
                reason=window.reason,
                author=window.author,
                booked_at=window.booked_at,
            )
        )
    listed.sort(key=lambda booking: (booking.since, booking.booking_id))
    return listed


def has_label(entry: AgentEntry, label: str) -> bool:
    """Returns whether a label of the host, or its own metadata, says this (`site=FRA`)."""
    name, _, value = label.partition("=")
    described = entry.described
    if name not in described:
        return False
    return str(described[name]) == value


def _kept(
    windows: list[MaintenanceWindow],
    needed_since: datetime,
) -> tuple[MaintenanceWindow, ...]:
    """Returns at most MAX_KEPT bookings. Raises RefusedError where too many are still needed.

    What was over before `needed_since` is in windows that are recorded, and excuses nothing more.
    """
    over = [window for window in windows if window.until <= needed_since]
    needed = [window for window in windows if window.until > needed_since]
    if len(needed) > MAX_KEPT:
        raise RefusedError(
            REFUSED,
            f"an agent has at most {MAX_KEPT} bookings ahead, in the open window, and in this "
            "month where it has a budget: book later ones when some are over and recorded",
        )
    room = MAX_KEPT - len(needed)
    over.sort(key=lambda window: window.until)
    kept = [*over[len(over) - min(room, len(over)) :], *needed]
    kept.sort(key=lambda window: window.since)
    return tuple(kept)


def _most_in_a_month(windows: list[MaintenanceWindow], new: MaintenanceWindow) -> tuple[str, float]:
    """Returns, of the months that the new booking touches, the fullest one and its hours."""
    fullest, most = "", 0.0
    month = month_begin(new.since)
    while month < new.until:
        hours = used_in_month(windows, month).total_seconds() / 3600
        if hours >= most:
            fullest, most = f"{month:%Y-%m}", hours
        month = month_begin(month + timedelta(days=32))
    return fullest, most
