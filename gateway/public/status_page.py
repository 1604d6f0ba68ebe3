"""What a status page says: computed from what the scheduler and storage answer. Pure.

Everything that must not be seen is left out here, so that no rendering can show it: ids unless they
are wanted, addresses, labels, UUIDs, and the reasons that operators give for maintenance.
"""

from collections.abc import Iterable
from datetime import date, datetime, timedelta

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from bus.contract.maintenance import Booking
from bus.contract.publishing import (
    INCIDENT_DAYS,
    PUBLIC_NAME,
    STATUS_DAYS,
    HostDay,
    HostDays,
    HostIncident,
    StatusPage,
)
from bus.contract.questions import Agent
from gateway.public import words
from gateway.public.words import HostState

MOST_INCIDENTS = 50
SHORTEST_SECONDS = 60.0  # what was over sooner is in the bars, and not listed
_NO_TIME = HostDay(day="")


class ShownDay(Struct, kw_only=True, frozen=True):
    """A day (UTC). Without judged time its uptime is None."""

    day: date
    uptime_percent: float | None
    lost_seconds: float
    excused_seconds: float


class ShownHost(Struct, kw_only=True, frozen=True):
    """A host. `uptime_percent` is of all its days together; the id is there where it is wanted."""

    name: str
    agent_id: str | UnsetType = UNSET
    state: HostState
    simulated: bool  # its GPUs do not exist
    uptime_percent: float | None
    days: tuple[ShownDay, ...]


class ShownIncident(Struct, kw_only=True, frozen=True):
    """Something that went wrong with a host, once or several times on a day.

    `seconds` are those of all times; `until` is None while it goes on.
    """

    host: str
    state: str
    what: str
    since: datetime
    until: datetime | None
    times: int
    seconds: float


class ShownMaintenance(Struct, kw_only=True, frozen=True):
    """Planned maintenance of some hosts of the page."""

    hosts: tuple[str, ...]
    since: datetime
    until: datetime


class StatusView(Struct, kw_only=True, frozen=True):
    """A whole page. `stale`: the present cannot be asked for, and `as_of` is when it could.

    `history_stale` and `history_as_of` are the same of days and incidents, the latter None where
    they were never known.
    """

    name: str
    title: str
    summary: str
    state: HostState
    as_of: datetime
    stale: bool
    history_stale: bool
    history_as_of: datetime | None
    hosts: tuple[ShownHost, ...]
    incidents: tuple[ShownIncident, ...]
    incidents_total: int
    maintenance: tuple[ShownMaintenance, ...]


class History(Struct, kw_only=True, frozen=True):
    """What storage knew of the hosts at a moment."""

    as_of: datetime
    hosts: dict[str, HostDays]


def compute(
    page: StatusPage,
    agents: list[Agent],
    bookings: Iterable[Booking],
    history: History | None,
    now: datetime,
    *,
    history_stale: bool,
) -> StatusView:
    """Returns the page of these agents, which are in the order in which they are numbered.

    `history` is what storage answered now, or with `history_stale` what it answered before.
    """
    names = host_names(agents)
    states = [words.host_state(agent) for agent in agents]
    hosts: list[ShownHost] = []
    incidents: list[ShownIncident] = []
    for agent, state in zip(agents, states, strict=True):
        known = history.hosts.get(agent.agent_id) if history is not None else None
        days = shown_days(known, now, STATUS_DAYS)
        hosts.append(
            ShownHost(
                name=names[agent.agent_id],
                agent_id=agent.agent_id if page.show_ids else UNSET,
                state=state,
                simulated=agent.simulated,
                uptime_percent=_uptime(known),
                days=days,
            )
        )
        if known is not None:
            incidents += _by_day(_incidents(names[agent.agent_id], known.incidents, now))
    incidents.sort(key=lambda one: one.since, reverse=True)
    incidents.sort(key=lambda one: one.until is not None)
    return StatusView(
        name=page.name,
        title=page.title,
        summary=words.summary(states),
        state=words.worst(states),
        as_of=now,
        stale=False,
        history_stale=history_stale,
        history_as_of=history.as_of if history is not None else None,
        hosts=tuple(hosts),
        incidents=tuple(incidents[:MOST_INCIDENTS]),
        incidents_total=len(incidents),
        maintenance=tuple(_maintenance(names, bookings, now)),
    )


def host_names(agents: list[Agent]) -> dict[str, str]:
    """The shown name of each agent: what an operator calls it in public, else its number.

    Only the operator's labels count. A host that could name itself could write on a public page.
    """
    names: dict[str, str] = {}
    for number, agent in enumerate(agents, 1):
        names[agent.agent_id] = agent.labels.get(PUBLIC_NAME) or f"Host {number}"
    return names


def shown_days(
    known: HostDays | None,
    now: datetime,
    count: int,
) -> tuple[ShownDay, ...]:
    """The newest `count` days, also those of which nothing is known."""
    by_day: dict[str, HostDay] = {}
    if known is not None:
        by_day = {one.day: one for one in known.days}
    shown: list[ShownDay] = []
    for day in words.last_days(now, count):
        found = by_day.get(day.isoformat(), _NO_TIME)
        shown.append(
            ShownDay(
                day=day,
                uptime_percent=found.uptime_percent,
                lost_seconds=found.lost_seconds,
                excused_seconds=found.excused_seconds,
            )
        )
    return tuple(shown)


def _uptime(known: HostDays | None) -> float | None:
    """The uptime of all days together, from their seconds."""
    if known is None:
        return None
    whole = HostDay(
        day="",
        up_seconds=sum(day.up_seconds for day in known.days),
        lost_seconds=sum(day.lost_seconds for day in known.days),
    )
    return whole.uptime_percent


def _incidents(
    name: str,
    incidents: tuple[HostIncident, ...],
    now: datetime,
) -> list[ShownIncident]:
    begin = now - timedelta(days=INCIDENT_DAYS)
    shown: list[ShownIncident] = []
    for incident in incidents:
        until = incident.until
        if until is not None:
            is_short = (until - incident.since).total_seconds() < SHORTEST_SECONDS
            if is_short or until < begin:
                continue
        if incident.state not in {"down", "degraded", "unknown", words.MISSING}:
            continue  # an event that says nothing of the host's state
        shown.append(
            ShownIncident(
                host=name,
                state="down" if incident.state == words.MISSING else incident.state,
                what=words.incident_words(incident),
                since=incident.since,
                until=until,
                times=1,
                seconds=((until or now) - incident.since).total_seconds(),
            )
        )
    return shown


def _by_day(incidents: list[ShownIncident]) -> list[ShownIncident]:
    """The incidents of a host, in which the same thing on the same day is one."""
    kept: dict[tuple[str, date], ShownIncident] = {}
    going_on: list[ShownIncident] = []
    for one in incidents:
        if one.until is None:
            going_on.append(one)
            continue
        key = (one.what, one.since.date())
        earlier = kept.get(key)
        if earlier is None:
            kept[key] = one
        else:
            kept[key] = replace(
                earlier,
                until=max(one.until, earlier.until or one.until),
                times=earlier.times + 1,
                seconds=earlier.seconds + one.seconds,
            )
    return [*going_on, *kept.values()]


def _maintenance(
    names: dict[str, str],
    bookings: Iterable[Booking],
    now: datetime,
) -> list[ShownMaintenance]:
    """The maintenance of the page's hosts: to come, going on, and of the newest days."""
    begin = now - timedelta(days=INCIDENT_DAYS)
    shown: list[ShownMaintenance] = []
    for booking in bookings:
        hosts = [names[agent_id] for agent_id in names if agent_id in set(booking.agent_ids)]
        if not hosts or booking.until < begin:
            continue
        shown.append(ShownMaintenance(hosts=tuple(hosts), since=booking.since, until=booking.until))
    shown.sort(key=lambda one: one.since, reverse=True)
    return shown
