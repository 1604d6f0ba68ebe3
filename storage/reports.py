"""The uptime statement, asked of the history: finds the windows, leaves the arithmetic to pure modules."""

from datetime import datetime
from typing import Any

from msgspec import Struct

from bus.errors import RefusedError
from bus.messages import Incident
from bus.statements import Replay, Statement, StatementRequest
from storage import rules
from storage.database import listed, rows_of, sql
from storage.missing import began_us, missing
from storage.partitions import DAY_US
from storage.rows import microseconds, moment
from storage.statement import SETTLED_US, Period, account, add_up, gpu_accounts, month_bounds
from storage.store import Reader
from storage.windows import Milliseconds, Window, within

BEFORE_US = 1 * DAY_US  # an agent's clock may be ahead of ours
AFTER_US = 2 * DAY_US  # the report that covers a month's end comes within the longest interval,
LATE_US = 40 * DAY_US  # unless misses put it off: then it is looked for further on
_EVER = 2**62


class Outcomes(Struct, frozen=True):
    """What history has of an agent around a month. `names` are the GPUs' places and models."""

    rows: list[tuple[Any, ...]]
    windows: dict[int, Window]  # by pinged_us
    names: dict[str, tuple[int | None, str]]


def statement(reader: Reader, agent_id: str, request: StatementRequest, now: datetime, threshold: float) -> Statement:
    """The statement. Raises RefusedError (404) for an agent without history, (400) for a month to come."""
    agent = reader.names.agents.find(agent_id)
    if agent is None:
        raise RefusedError(404, f"no history of agent {agent_id}")
    since_us, until_us = month_bounds(request.month)
    if since_us > microseconds(now):
        raise RefusedError(400, f"{request.month} has not begun")
    outcomes = _outcomes(reader, agent, since_us - BEFORE_US, until_us + AFTER_US)
    if microseconds(now) > until_us + AFTER_US and not _reaches(outcomes, until_us):
        outcomes = _outcomes(reader, agent, since_us - BEFORE_US, until_us + LATE_US)
    period = _period(reader, agent, request, outcomes, (since_us, until_us, microseconds(now)))
    month = add_up(outcomes.windows.values(), period)
    pinged = [row for row in outcomes.rows if since_us <= row[1] < until_us]
    began = began_us(reader, agent)
    numbers = [row[0] for row in pinged if row[1] >= began]
    span = (min(numbers, default=None), max(numbers, default=None))
    return Statement(
        agent_id=agent_id,
        month=request.month,
        generated_at=now,
        since=moment(period.since_us),
        until=moment(period.until_us),
        final=_is_final(outcomes, until_us, microseconds(now)),
        enrolled_seconds=period.length_ms / 1000,
        host=account(month.host, period.length_ms),
        gpus=gpu_accounts(month, period, outcomes.names),
        incidents=tuple(month.incidents),
        splits=tuple(month.splits),
        pings=len(pinged),
        answered=sum(1 for row in pinged if row[2] == "answered"),
        missed=sum(1 for row in pinged if row[2] == "missed"),
        excused=sum(1 for row in pinged if row[2] == "excused"),
        missing_seqs=missing(reader, agent, began, span, since_us, until_us),
        replay=_replay(request, outcomes, period, threshold, (since_us, until_us)),
    )


def _period(
    reader: Reader, agent: int, request: StatementRequest, outcomes: Outcomes, bounds: tuple[int, int, int]
) -> Period:
    """The enrolled part of the month. While it runs, up to the last outcome: what follows is not known yet."""
    since_us, until_us, now_us = bounds
    if request.enrolled_since is not None:
        begins = microseconds(request.enrolled_since)
    else:
        asked = {"agent": agent, "ever": _EVER}
        first = rows_of(reader.cursor, reader.partitions.fill(sql("first_outcome")), asked)[0][0]
        window = outcomes.windows.get(first)
        begins = first if window is None else min(first, window.since_us)
    ends = until_us if request.enrolled_until is None else min(until_us, microseconds(request.enrolled_until))
    if now_us < until_us:
        told = [row[1] if row[10] is None else row[10] for row in outcomes.rows]
        ends = min(ends, max(told, default=now_us), now_us)
    begins = max(since_us, begins)
    return Period(begins, max(begins, ends))


def _is_final(outcomes: Outcomes, until_us: int, now_us: int) -> bool:
    return _reaches(outcomes, until_us) or now_us >= until_us + SETTLED_US


def _reaches(outcomes: Outcomes, until_us: int) -> bool:
    """Whether a report covers this moment, so that none to come can tell of what was before."""
    return any(window.until_us >= until_us for window in outcomes.windows.values())


def _outcomes(reader: Reader, agent: int, since_us: int, until_us: int) -> Outcomes:
    asked = {"agent": agent, "since_us": since_us, "until_us": until_us}

    def rows(name: str, **parameters: Any) -> list[tuple[Any, ...]]:
        return rows_of(reader.cursor, reader.partitions.fill(sql(name), since_us, until_us), parameters or asked)

    pings = rows("statement_windows")
    numbers = sorted({row[12] for row in pings if row[12] is not None})
    sets = {number: reader.names.gpus(number) for number in numbers}
    names = {uuid: (index, name) for gpus in sets.values() for uuid, index, name in gpus}
    own: dict[int, dict[str, Milliseconds]] = {}
    for gpu in rows("gpus_of_pings", agents=listed([agent]), since_us=since_us, until_us=until_us):
        own.setdefault(gpu[2], {})[gpu[3]] = Milliseconds(*gpu[9:14])
    told: dict[int, list[Incident]] = {}
    for _, pinged_us, uuid, state, reason, begun, ended in rows("statement_incidents"):
        incident = Incident(
            gpu=uuid, state=state, reason=reason, since=moment(begun), until=None if ended is None else moment(ended)
        )
        told.setdefault(pinged_us, []).append(incident)
    windows = {}
    for row in pings:
        if row[5] is None or row[10] is None:
            continue
        host = Milliseconds(*row[5:10])
        shared = {uuid: host for uuid, _, _ in sets.get(row[12], [])}
        incidents = tuple(told.get(row[1], ()))
        windows[row[1]] = Window(row[0], row[11], row[10], host, own.get(row[1], shared), incidents)
    return Outcomes(pings, windows, names)


def _replay(
    request: StatementRequest, outcomes: Outcomes, period: Period, threshold: float, bounds: tuple[int, int]
) -> Replay | None:
    if request.threshold is None and request.policy is None:
        return None
    judged = []
    for row in outcomes.rows:
        window = outcomes.windows.get(row[1])
        part = Milliseconds()
        if window is not None and window.until_us > period.since_us and window.since_us < period.until_us:
            part = within(window, None, period.since_us, period.until_us).account
        in_month = bounds[0] <= row[1] < bounds[1]
        judged.append(rules.Judged(part, in_month and row[3] in {"good", "poor"}, row[2] == "answered", row[4]))
    then_threshold = threshold if request.threshold is None else request.threshold
    then = rules.threshold_rules(then_threshold) if request.policy is None else rules.read_rules(request.policy)
    return rules.replay(judged, period, (rules.threshold_rules(threshold), threshold), (then, then_threshold))
