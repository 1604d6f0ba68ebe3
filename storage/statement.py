"""One agent's month, accounted: from windows to a statement. Pure; the clock is read by who asks."""

from collections.abc import Iterable
from datetime import UTC, datetime

from msgspec import Struct
from msgspec.structs import replace

from bus.messages import Incident
from bus.statements import Account, GpuAccount, Split
from storage.rows import microseconds, moment
from storage.windows import Milliseconds, Part, Window, within

Kind = tuple[str | None, str, str]  # GPU, state, reason
JITTER_US = 100_000
SETTLED_US = 48 * 3600 * 1_000_000  # so long after a month's end nobody waits for reports of it any more


class Period(Struct, frozen=True):
    """`[since, until)`, the enrolled part of a month in microseconds."""

    since_us: int
    until_us: int

    @property
    def length_ms(self) -> int:
        """Whole milliseconds."""
        return max(0, self.until_us - self.since_us) // 1000


class Month(Struct, frozen=True):
    """What the windows of a period add up to."""

    host: Milliseconds
    gpus: dict[str, Milliseconds]
    first_seen_us: dict[str, int]
    splits: list[Split]
    incidents: list[Incident]


def month_bounds(month: str) -> tuple[int, int]:
    """A calendar month, UTC, in microseconds."""
    year, number = (int(part) for part in month.split("-"))
    following = (year + 1, 1) if number == 12 else (year, number + 1)
    return microseconds(datetime(year, number, 1, tzinfo=UTC)), microseconds(datetime(*following, 1, tzinfo=UTC))


def add_up(windows: Iterable[Window], period: Period) -> Month:
    """Every window's part in the period; windows that cross an edge are cut there."""
    month = Month(Milliseconds(), {}, {}, [], [])
    host = month.host
    incidents: list[Incident] = []
    open_until: dict[Kind, tuple[int, int]] = {}
    for window in windows:
        if window.until_us <= period.since_us or window.since_us >= period.until_us:
            continue
        part = within(window, None, period.since_us, period.until_us)
        host = host.plus(part.account)
        month.splits.extend(_splits(window, period, part))
        for uuid in window.gpus:
            share = within(window, uuid, period.since_us, period.until_us).account
            month.gpus[uuid] = month.gpus.get(uuid, Milliseconds()).plus(share)
            month.first_seen_us.setdefault(uuid, max(window.since_us, period.since_us))
        for incident in window.incidents:
            _tell(incidents, open_until, incident, window.until_us)
    within_month = [one for one in incidents if _touches(one, period)]
    within_month.sort(key=lambda one: (one.since, one.gpu or "", one.state))
    return Month(host, month.gpus, month.first_seen_us, month.splits, within_month)


def account(sums: Milliseconds, enrolled_ms: int) -> Account:
    """Percents over the enrolled time; what no report covers is not up."""
    unreported = max(0, enrolled_ms - sums.total)
    judged = sums.total + unreported - sums.excused
    return Account(
        seconds=sums.seconds(),
        unreported_seconds=unreported / 1000,
        coverage_percent=min(100.0, 100.0 * sums.total / enrolled_ms) if enrolled_ms else None,
        uptime_percent=100.0 * (sums.up + sums.degraded) / judged if judged > 0 else None,
    )


def gpu_accounts(month: Month, period: Period, names: dict[str, tuple[int | None, str]]) -> tuple[GpuAccount, ...]:
    """By GPU; one that came during the month is accounted from then on."""
    accounts = []
    for uuid, sums in month.gpus.items():
        enrolled_ms = max(0, period.until_us - month.first_seen_us[uuid]) // 1000
        base = account(sums, enrolled_ms)
        index, name = names.get(uuid, (None, ""))
        accounts.append(
            GpuAccount(
                uuid=uuid,
                name=name,
                index=index,
                enrolled_seconds=enrolled_ms / 1000,
                seconds=base.seconds,
                unreported_seconds=base.unreported_seconds,
                coverage_percent=base.coverage_percent,
                uptime_percent=base.uptime_percent,
            )
        )
    return tuple(sorted(accounts, key=lambda one: (one.index is None, one.index or 0, one.uuid)))


def _splits(window: Window, period: Period, part: Part) -> list[Split]:
    edges = [edge for edge in (period.since_us, period.until_us) if window.since_us < edge < window.until_us]
    return [
        Split(
            ping_seq=window.ping_seq,
            since=moment(window.since_us),
            until=moment(window.until_us),
            at=moment(edge),
            method=part.method,
        )
        for edge in edges
    ]


def _tell(told: list[Incident], going_on: dict[Kind, tuple[int, int]], one: Incident, until_us: int) -> None:
    """An incident that goes on is told by every report, its last telling counts.

    It is the same one when it began before the report that left it open did end; its label of time may differ a little,
    because the host's clock is corrected while it runs. `going_on`: where each kind's open one is, and that end.
    """
    kind = (one.gpu, one.state, one.reason)
    place, before_us = going_on.pop(kind, (-1, 0))
    if place >= 0 and microseconds(one.since) <= before_us + JITTER_US:
        told[place] = replace(one, since=told[place].since)
    else:
        place = len(told)
        told.append(one)
    if one.until is None:
        going_on[kind] = (place, until_us)


def _touches(one: Incident, period: Period) -> bool:
    return microseconds(one.since) < period.until_us and (
        one.until is None or microseconds(one.until) >= period.since_us
    )
