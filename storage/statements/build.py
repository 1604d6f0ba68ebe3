"""The uptime statement, asked of the history: finds the outcomes, leaves the arithmetic to pure modules."""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime

from bus.contract.messages import Span
from bus.contract.statements import Replay, Statement, StatementRequest
from bus.errors import RefusedError
from storage.archive import day_folders
from storage.engine.partitions import DAY_US
from storage.engine.rows import from_microseconds, microseconds
from storage.statements import payment
from storage.statements.account import account, add_up, enrolled, gpu_accounts, month_bounds, part
from storage.statements.enrolments import Known, Period, ended, periods
from storage.statements.outcomes import Outcomes, Told, first_us, outcomes
from storage.statements.windows import Milliseconds, Window
from storage.store.missing import missing, numbering_began_us
from storage.store.store import Reader

BEFORE_US = 1 * DAY_US
AFTER_US = 2 * DAY_US  # the report that covers a month's end comes within the longest interval,
FLIGHT_US = 60_000_000  # a ping that was on its way when its agent was removed is recorded by then
LATE_US = 40 * DAY_US  # unless misses put it off: so long it is waited for, and then no longer


def statement(
    reader: Reader, agent_id: str, request: StatementRequest, now: datetime, threshold: float
) -> Statement:
    """The statement.

    Raises RefusedError: 404 for an agent that nobody knows or a month that is no longer kept, 400 for one to come.
    """
    month, now_us = Period(*month_bounds(request.month)), microseconds(now)
    if month.since_us > now_us:
        raise RefusedError(400, f"{request.month} has not begun")
    forgotten_us = _forgotten(reader, request.month, month)
    found, first = _found(reader, agent_id, request, month, now_us)
    kept = Period(max(month.since_us, forgotten_us), month.until_us)
    known = Known(
        [one.pinged_us for one in found.told if one.outcome != "excused"], found.windows, first
    )
    within = periods(request.enrolments, known, kept, now_us)
    sums = add_up(found.windows.values(), within)
    enrolled_ms = enrolled(sums.host, within)
    return Statement(
        agent_id=agent_id,
        month=request.month,
        generated_at=now,
        since=from_microseconds(within[0].since_us if within else kept.since_us),
        until=from_microseconds(within[-1].until_us if within else kept.since_us),
        final=_is_final(reader, request, found.windows.values(), month, now_us),
        enrolled_seconds=enrolled_ms / 1000,
        host=account(sums.host, enrolled_ms),
        gpus=gpu_accounts(sums, within, found.names),
        incidents=tuple(sums.incidents),
        splits=tuple(sums.splits),
        enrolled=tuple(
            Span(from_microseconds(period.since_us), from_microseconds(period.until_us))
            for period in within
        ),
        forgotten_until=from_microseconds(forgotten_us) if forgotten_us > month.since_us else None,
        replay=_replay(request, _judged(found, within, month), enrolled_ms, threshold),
        **_counts(reader, agent_id, found, month),
    )


def _forgotten(reader: Reader, name: str, month: Period) -> int:
    """Before this moment nothing is kept. Raises RefusedError (404) where that is the whole month."""
    until_us = day_folders.retention_cutoff_us(reader.cursor)
    if until_us >= month.until_us:
        raise RefusedError(
            404, f"{name} is no longer kept: history begins {from_microseconds(until_us):%Y-%m-%d}"
        )
    return until_us


def _found(
    reader: Reader, agent_id: str, request: StatementRequest, month: Period, now_us: int
) -> tuple[Outcomes, int | None]:
    """The outcomes that tell of the month, and when the agent's history begins."""
    agent = reader.names.agents.find(agent_id)
    if agent is None:
        if not request.enrolments:
            raise RefusedError(404, f"no history of agent {agent_id}")
        return Outcomes([], {}, {}), None
    since_us = month.since_us - BEFORE_US
    found = outcomes(reader, agent, since_us, month.until_us + AFTER_US)
    if now_us > month.until_us + AFTER_US and not _reach(found.windows.values(), month):
        found = outcomes(reader, agent, since_us, month.until_us + LATE_US)
    return found, first_us(reader, agent)


def _counts(reader: Reader, agent_id: str, found: Outcomes, month: Period) -> dict[str, int]:
    """The month's pings by outcome, and how many are missing between the first and the last."""
    pinged = [one for one in found.told if one.pinged_us in month]
    by_outcome = Counter(one.outcome for one in pinged)
    agent = reader.names.agents.find(agent_id)
    kinds = {kind: by_outcome[kind] for kind in ("answered", "missed", "excused")}
    lacking = 0 if agent is None else _lacking(reader, agent, pinged, month)
    return {"pings": len(pinged), "missing_seqs": lacking} | kinds


def _lacking(reader: Reader, agent: int, pinged: list[Told], month: Period) -> int:
    """How many of the month's outcomes never reached history."""
    began = numbering_began_us(reader, agent)
    numbers = [one.ping_seq for one in pinged if one.pinged_us >= began]
    span = (min(numbers, default=None), max(numbers, default=None))
    return missing(reader, agent, began, span, month.since_us, month.until_us)


def _is_final(
    reader: Reader, request: StatementRequest, windows: Iterable[Window], month: Period, now_us: int
) -> bool:
    """Whether no outcome to come can change it: none is awaited, and ingest has got that far."""
    if now_us < month.until_us:
        return False
    if reader.newest_us >= month.until_us and _reach(windows, month):
        return True
    if (end_us := ended(request.enrolments, month, now_us)) is None:
        return reader.newest_us >= month.until_us + LATE_US
    return (
        reader.newest_us >= end_us + FLIGHT_US or now_us >= month.until_us + LATE_US
    )  # perhaps it was the last of all


def _reach(windows: Iterable[Window], month: Period) -> bool:
    """Whether a report covers the month's end, so that none to come can tell of what was before."""
    return any(window.until_us >= month.until_us for window in windows)


def _judged(found: Outcomes, within: list[Period], month: Period) -> list[payment.Judged]:
    """Every outcome, with its window's part in the account."""
    judged = []
    for one in found.told:
        window = found.windows.get(one.pinged_us)
        account = Milliseconds() if window is None else part(window, None, within)
        counts = one.pinged_us in month and one.verdict in {"good", "poor"}
        whole = None if window is None else window.host
        judged.append(
            payment.Judged(account, counts, one.outcome == "answered", one.uptime_percent, whole)
        )
    return judged


def _replay(
    request: StatementRequest, judged: list[payment.Judged], enrolled_ms: int, threshold: float
) -> Replay | None:
    if request.threshold is None and request.policy is None:
        return None
    then_threshold = threshold if request.threshold is None else request.threshold
    then = (
        payment.threshold_rules(then_threshold)
        if request.policy is None
        else payment.read_rules(request.policy)
    )
    return payment.replay(
        judged, enrolled_ms, (payment.threshold_rules(threshold), threshold), (then, then_threshold)
    )
