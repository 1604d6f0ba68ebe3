"""Replays the fleet's month under other payment rules, and tells which agents gain and which lose.

The database first adds up the windows of one agent that are paid alike under both rules: a month of
10,000 agents is then a few ten thousand rows instead of thirty million.
"""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from itertools import groupby
from math import fsum
from operator import attrgetter
from typing import NamedTuple

from bus.contract.statements import (
    AgentReplay,
    FleetReplay,
    FleetReplayRequest,
    Pay,
    PayRules,
    Replay,
)
from bus.errors import RefusedError
from storage.engine.database import rows_as, sql
from storage.engine.duration_columns import durations_of
from storage.engine.rows import microseconds
from storage.statements import payment
from storage.statements.account import month_interval
from storage.statements.payment import PayableWindow, Terms
from storage.statements.policy_files import asked_terms
from storage.store.store import Reader


class _WindowsRow(NamedTuple):
    """A row of `replay_windows.sql`: the windows of an agent that are paid alike, added up."""

    agent: int
    up_ms: int
    degraded_ms: int
    down_ms: int
    unknown_ms: int
    excused_ms: int


def fleet(
    reader: Reader,
    request: FleetReplayRequest,
    now: datetime,
    threshold: float,
) -> FleetReplay:
    """Returns every agent's pay over the time that its reports cover, the greatest change first.

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
    agents = []
    replays = []
    for agent, agent_rows in groupby(rows, key=attrgetter("agent")):
        replayed, covered_ms = _replay_agent(agent_rows, terms_now, terms_then)
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
    )


def _replay_agent(
    rows: Iterable[_WindowsRow],
    terms_now: Terms,
    terms_then: Terms,
) -> tuple[Replay, int]:
    """Returns the agent's replay, and the milliseconds that its reports cover."""
    windows = []
    covered_ms = 0
    for row in rows:
        durations = durations_of(row)
        covered_ms += durations.window
        window = PayableWindow(
            durations,
            judged=False,
            answered=True,
            uptime_percent=None,
        )
        windows.append(window)
    return payment.replay(windows, covered_ms, terms_now, terms_then), covered_ms


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
