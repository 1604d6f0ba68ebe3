"""Replays the fleet's month under other payment rules, and tells which agents gain and which lose.

The database first adds up the windows of one agent that are paid alike under both rules: a month of
10,000 agents is then a few ten thousand rows instead of thirty million.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import datetime
from math import fsum
from typing import Any, NamedTuple

from bus.contract.durations import Durations, Interval
from bus.contract.messages import Incident
from bus.contract.statements import (
    AgentReplay,
    FleetReplay,
    FleetReplayRequest,
    Pay,
    PayRules,
    Replay,
)
from bus.errors import RefusedError
from storage.engine.database import listed, rows_as, sql
from storage.engine.duration_columns import durations_of
from storage.engine.rows import microseconds
from storage.statements import payment
from storage.statements.account import durations_within, month_interval
from storage.statements.left_out import left_out
from storage.statements.outcomes import AWAITED_US, stored_incident
from storage.statements.payment import PayableWindow, Terms
from storage.statements.policy_files import asked_terms
from storage.statements.unaccounted import Unaccounted, unaccounted
from storage.statements.windows import PingKey, ReportWindow
from storage.store.store import Reader


class _WindowsRow(NamedTuple):
    """A row of `replay_windows.sql`: the windows of an agent that are paid alike, added up."""

    agent: int
    up_ms: int
    degraded_ms: int
    down_ms: int
    unknown_ms: int
    excused_ms: int


class _EdgeRow(NamedTuple):
    """A row of `replay_edges.sql`."""

    agent: int
    ping_seq: int
    pinged_us: int
    begin_us: int
    up_ms: int
    degraded_ms: int
    down_ms: int
    unknown_ms: int
    excused_ms: int


class _EdgeIncidentRow(NamedTuple):
    """A row of `edge_incidents.sql`."""

    agent: int
    ping_seq: int
    pinged_us: int
    gpu: str | None
    state: str
    reason: str
    since_us: int
    until_us: int | None

    def incident(self) -> Incident:
        """Returns the incident."""
        return stored_incident(self.gpu, self.state, self.reason, self.since_us, self.until_us)


class _EdgeWindow(NamedTuple):
    agent: int
    window: PayableWindow


def fleet(
    reader: Reader,
    request: FleetReplayRequest,
    now: datetime,
    threshold: float,
) -> FleetReplay:
    """Returns every agent's pay over the time that it was asked about, the greatest change first.

    Raises RefusedError (400) for a month in the future, BadMessageError for a policy that cannot be
    read.
    """
    month = month_interval(request.month)
    if month.begin > microseconds(now):
        raise RefusedError(400, f"{request.month} has not begun")
    terms_now = payment.threshold_terms(threshold)
    terms_then = asked_terms(request.threshold, request.policy, threshold)
    text = sql("replay_windows")
    text = text.replace("{now}", _bands_reached(terms_now.rules))
    text = text.replace("{then}", _bands_reached(terms_then.rules))
    text = reader.partitions.fill(text, month.begin, month.end)
    asked = {"since_us": month.begin, "until_us": month.end}
    rows = rows_as(_WindowsRow, reader.cursor, text, asked)
    windows: dict[int, list[PayableWindow]] = defaultdict(list)
    for row in rows:
        windows[row.agent].append(_payable(durations_of(row)))
    for edge in _edge_windows(reader, month):
        windows[edge.agent].append(edge.window)
    missing_time = unaccounted(reader, month.begin, month.end)
    agents = []
    replays = []
    for agent in sorted(windows.keys() | missing_time.keys()):
        time = missing_time.get(agent, Unaccounted())
        replayed, covered_ms = _replay_agent(windows[agent], time, terms_now, terms_then)
        replays.append(replayed)
        agent_id = reader.names.agents.name(agent)
        agents.append(_agent_replay(agent_id, replayed, covered_ms))
    agents.sort(key=_greatest_change_first)
    changes = Counter(agent.change for agent in agents)
    return FleetReplay(
        month=request.month,
        now=terms_now.rules.name,
        then=terms_then.rules.name,
        gains=changes["gains"],
        loses=changes["loses"],
        same=changes["same"],
        agents=tuple(agents),
        now_paid_percent=_paid_percent([one.now for one in replays]),
        then_paid_percent=_paid_percent([one.then for one in replays]),
        left_out=left_out(reader, month),
    )


def _replay_agent(
    windows: list[PayableWindow],
    missing_time: Unaccounted,
    terms_now: Terms,
    terms_then: Terms,
) -> tuple[Replay, int]:
    """Returns the agent's replay, and the milliseconds that its reports cover.

    Time in which it was asked and never answered is due and not paid. Time whose outcome was lost
    is excused.
    """
    covered_ms = 0
    for window in windows:
        covered_ms += window.durations.window
    due_ms = covered_ms + missing_time.unreported_ms
    return payment.replay(windows, due_ms, terms_now, terms_then), covered_ms


def _payable(durations: Durations, whole: Durations | None = None) -> PayableWindow:
    return PayableWindow(
        durations,
        judged=False,
        answered=True,
        uptime_percent=None,
        whole=whole,
    )


def _edge_windows(reader: Reader, month: Interval) -> Iterator[_EdgeWindow]:
    """Yields the part within the month of each window that crosses an edge of it."""
    awaited_us = month.end + AWAITED_US
    asked = {"since_us": month.begin, "until_us": month.end, "awaited_us": awaited_us}
    text = reader.partitions.fill(sql("replay_edges"), month.begin, awaited_us)
    rows = rows_as(_EdgeRow, reader.cursor, text, asked)
    if not rows:
        return
    asked_rows = [{"agent": row.agent, "pinged_us": row.pinged_us} for row in rows]
    text = reader.partitions.fill(sql("edge_incidents"), month.begin, awaited_us)
    parameters: dict[str, Any] = {
        "rows": listed(asked_rows),
        "since_us": month.begin,
        "awaited_us": awaited_us,
    }
    incidents: dict[tuple[int, PingKey], list[Incident]] = defaultdict(list)
    for told in rows_as(_EdgeIncidentRow, reader.cursor, text, parameters):
        incidents[told.agent, PingKey(told.pinged_us, told.ping_seq)].append(told.incident())
    for row in rows:
        window = ReportWindow(
            ping_seq=row.ping_seq,
            interval=Interval(row.begin_us, row.pinged_us),
            host=durations_of(row),
            gpus={},
            incidents=tuple(incidents[row.agent, PingKey(row.pinged_us, row.ping_seq)]),
            measured=True,
        )
        part = durations_within(window, None, [month])
        yield _EdgeWindow(row.agent, _payable(part, window.host))


def _agent_replay(
    agent_id: str,
    replayed: Replay,
    covered_ms: int,
) -> AgentReplay:
    return AgentReplay(
        agent_id=agent_id,
        uptime_percent=replayed.now.uptime_percent,
        now_paid_percent=replayed.now.paid_percent,
        then_paid_percent=replayed.then.paid_percent,
        change_percent=replayed.change_percent,
        change=replayed.change,
        covered_seconds=covered_ms / 1000,
    )


def _greatest_change_first(agent: AgentReplay) -> tuple[float, str]:
    return -abs(agent.change_percent), agent.agent_id


def _bands_reached(rules: PayRules) -> str:
    """Returns SQL for the number of bands that a window's uptime reaches, as in `payment`."""
    judged = "up_ms + degraded_ms + down_ms"
    if rules.unknown_counts == "down":
        judged += " + unknown_ms"
    good = "up_ms"
    if rules.degraded_counts_as_up:
        good += " + degraded_ms"
    reached = []
    for band in rules.bands:
        at_least = f"uptime_percent({good}, {judged}) >= {band.at_least!r}::DOUBLE"
        reached.append(f"coalesce(({at_least})::INTEGER, 0)")
    return " + ".join(reached)


def _paid_percent(agents: list[Pay]) -> float | None:
    """Returns the paid share of the time of all agents that can be paid for; None without any."""
    due_seconds = fsum(one.due_seconds for one in agents)
    if not due_seconds:
        return None
    paid_seconds = fsum(one.paid_seconds for one in agents)
    return 100.0 * (paid_seconds / due_seconds)
