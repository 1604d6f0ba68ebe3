"""One agent's month, accounted: from windows to a statement. Pure; the clock is read by who asks."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from msgspec import Struct
from msgspec.structs import replace

from bus.contract.messages import Incident
from bus.contract.statements import Account, GpuAccount, Split
from storage.engine.rows import from_microseconds, microseconds
from storage.statements.enrolments import Period
from storage.statements.windows import Milliseconds, Window, within

Kind = tuple[str | None, str, str]  # GPU, state, reason
JITTER_US = 100_000
GRAIN_MS = 3  # less is no time that nobody reported


class Stay(Struct, frozen=True):
    """A GPU's account, and the time in which it was there."""

    sums: Milliseconds
    while_there: Period


class Month(Struct, frozen=True):
    """What the windows of some periods add up to."""

    host: Milliseconds
    gpus: dict[str, Stay]
    splits: list[Split]
    incidents: list[Incident]


def month_bounds(month: str) -> tuple[int, int]:
    """A calendar month, UTC, in microseconds."""
    year, number = (int(part) for part in month.split("-"))
    following = (year + 1, 1) if number == 12 else (year, number + 1)
    return microseconds(datetime(year, number, 1, tzinfo=UTC)), microseconds(
        datetime(*following, 1, tzinfo=UTC)
    )


def add_up(windows: Iterable[Window], periods: Sequence[Period]) -> Month:
    """Every window's part in the periods; windows that cross an edge are cut there."""
    windows = list(windows)
    reported = [window for window in windows if _touching(window, periods)]
    before = windows[max(0, windows.index(reported[0]) - 1)].gpus if reported else {}
    host = Milliseconds()
    incidents: list[Incident] = []
    open_until: dict[Kind, tuple[int, int]] = {}
    for window in reported:
        host = host.plus(part(window, None, periods))
        for incident in window.incidents:
            _tell(incidents, open_until, incident, window.until_us)
        _end_untold(incidents, open_until, window.until_us)
    told = [one for one in incidents if any(_touches(one, period) for period in periods)]
    told.sort(key=lambda one: (one.since, one.gpu or "", one.state))
    splits = [
        split for window in reported for period in periods for split in _splits(window, period)
    ]
    return Month(host, _stays(reported, set(before), periods), splits, told)


def part(window: Window, gpu: str | None, periods: Iterable[Period]) -> Milliseconds:
    """The part of the host's (or a GPU's) account that lies in any of the periods."""
    sums = Milliseconds()
    for period in _touching(window, periods):
        sums = sums.plus(within(window, gpu, period.since_us, period.until_us).account)
    return sums


def enrolled(sums: Milliseconds, periods: Iterable[Period]) -> int:
    """Milliseconds to account for: those of the periods, but that reports of all of it are all of it.

    Both ends of each window are rounded labels of a clock that is not the ledger's, so the two differ by a few.
    """
    length_ms = sum(period.length_ms for period in periods)
    return sums.total if length_ms <= sums.total + GRAIN_MS else length_ms


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


def gpu_accounts(
    month: Month, periods: Iterable[Period], names: dict[str, tuple[int | None, str]]
) -> tuple[GpuAccount, ...]:
    """By GPU; one that came or went during the month is accounted while it was there."""
    accounts = []
    for uuid, stay in month.gpus.items():
        there = (
            period.overlap(stay.while_there.since_us, stay.while_there.until_us)
            for period in periods
        )
        enrolled_ms = enrolled(stay.sums, there)
        base = account(stay.sums, enrolled_ms)
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


def _stays(reported: list[Window], before: set[str], periods: Sequence[Period]) -> dict[str, Stay]:
    """A GPU that the first report has was there from the beginning, one that the last has stays to the end.

    But not one that the report `before` these did not have: where there is none, this is the first one itself.
    """
    stays: dict[str, Stay] = {}
    for place, window in enumerate(reported):
        ends = periods[-1].until_us if place == len(reported) - 1 else window.until_us
        for uuid in window.gpus:
            sums = part(window, uuid, periods)
            if so_far := stays.get(uuid):
                stays[uuid] = Stay(
                    so_far.sums.plus(sums), Period(so_far.while_there.since_us, ends)
                )
            elif place == 0 and uuid in before:
                stays[uuid] = Stay(sums, Period(periods[0].since_us, ends))
            else:
                stays[uuid] = _arrived(window, sums, ends)
    return stays


def _arrived(window: Window, sums: Milliseconds, ends_us: int) -> Stay:
    """The host reported before without this GPU: what is unknown in its first report was before it came."""
    known = replace(sums, unknown=0)
    return Stay(known, Period(min(window.until_us, ends_us) - known.total * 1000, ends_us))


def _touching(window: Window, periods: Iterable[Period]) -> list[Period]:
    return [
        one for one in periods if window.until_us > one.since_us and window.since_us < one.until_us
    ]


def _splits(window: Window, period: Period) -> list[Split]:
    method = within(window, None, period.since_us, period.until_us).method
    edges = [
        edge
        for edge in (period.since_us, period.until_us)
        if window.since_us < edge < window.until_us
    ]
    return [
        Split(
            ping_seq=window.ping_seq,
            since=from_microseconds(window.since_us),
            until=from_microseconds(window.until_us),
            at=from_microseconds(edge),
            method=method,
        )
        for edge in edges
    ]


def _tell(
    told: list[Incident], going_on: dict[Kind, tuple[int, int]], one: Incident, until_us: int
) -> None:
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


def _end_untold(told: list[Incident], going_on: dict[Kind, tuple[int, int]], until_us: int) -> None:
    """What the report before left open and this one does not tell is known up to that report's end, and no further."""
    for kind, (place, before_us) in list(going_on.items()):
        if before_us < until_us:
            told[place] = replace(told[place], until=from_microseconds(before_us))
            del going_on[kind]


def _touches(one: Incident, period: Period) -> bool:
    begins, ends = microseconds(one.since), None if one.until is None else microseconds(one.until)
    return begins < period.until_us and (
        begins >= period.since_us or ends is None or ends > period.since_us
    )
