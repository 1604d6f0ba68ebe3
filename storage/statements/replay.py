"""The fleet's month under other rules: who gains, who loses.

Windows of one agent that are paid alike under both rules are summed by the database first: a month of 10,000
agents is then a few ten thousand rows and not thirty million.
"""

from datetime import datetime
from itertools import groupby
from math import fsum

from bus.contract.statements import AgentReplay, FleetReplay, FleetReplayRequest, Pay, Replay, Rules
from bus.errors import RefusedError
from storage.engine.database import rows_of, sql
from storage.engine.rows import microseconds
from storage.statements import payment
from storage.statements.account import month_bounds
from storage.statements.windows import Milliseconds
from storage.store.store import Reader


def fleet(
    reader: Reader, request: FleetReplayRequest, now: datetime, threshold: float
) -> FleetReplay:
    """Every agent's pay over the time that its reports cover, under the rules in force and under the others.

    Raises RefusedError (400) for a month to come, BadMessageError for a policy that is none.
    """
    then_threshold = threshold if request.threshold is None else request.threshold
    old = payment.threshold_rules(threshold)
    new = (
        payment.threshold_rules(then_threshold)
        if request.policy is None
        else payment.read_rules(request.policy)
    )
    since_us, until_us = month_bounds(request.month)
    if since_us > microseconds(now):
        raise RefusedError(400, f"{request.month} has not begun")
    text = sql("replay_windows").replace("{now}", _reached(old)).replace("{then}", _reached(new))
    text = reader.partitions.fill(text, since_us, until_us)
    rows = rows_of(reader.cursor, text, {"since_us": since_us, "until_us": until_us})
    agents, paid = [], []
    for agent, windows in groupby(rows, key=lambda row: row[0]):
        judged = [payment.Judged(Milliseconds(*row[1:]), False, True, None) for row in windows]
        covered_ms = sum(window.account.total for window in judged)
        replayed = payment.replay(judged, covered_ms, (old, threshold), (new, then_threshold))
        paid.append(replayed)
        agents.append(_agent(reader.names.agents.name(agent), replayed, covered_ms))
    agents.sort(key=lambda one: (-abs(one.change_percent), one.agent_id))
    return FleetReplay(
        month=request.month,
        now=old.name,
        then=new.name,
        agents=tuple(agents),
        now_paid_percent=_paid([one.now for one in paid]),
        then_paid_percent=_paid([one.then for one in paid]),
        **{
            word: sum(1 for one in agents if one.change == word)
            for word in ("gains", "loses", "same")
        },
    )


def _agent(agent_id: str, replayed: Replay, covered_ms: int) -> AgentReplay:
    return AgentReplay(
        agent_id=agent_id,
        uptime_percent=replayed.now.uptime_percent,
        now_paid_percent=replayed.now.paid_percent,
        then_paid_percent=replayed.then.paid_percent,
        change_percent=replayed.change_percent,
        change=replayed.change,
        covered_seconds=covered_ms / 1000,
    )


def _reached(chosen: Rules) -> str:
    """SQL: how many of the rules' bands a window reaches, by the arithmetic of `rules` to the last bit."""
    base = "up_ms + degraded_ms + down_ms" + (
        " + unknown_ms" if chosen.unknown_counts == "down" else ""
    )
    good = "up_ms" + (" + degraded_ms" if chosen.degraded_counts_as_up else "")
    uptime = f"uptime_percent({good}, {base})"
    return " + ".join(
        f"coalesce(({uptime} >= {band.at_least!r}::DOUBLE)::INTEGER, 0)" for band in chosen.bands
    )


def _paid(agents: list[Pay]) -> float | None:
    """Of the full rate, over all agents' time; None where nothing could be paid for."""
    due = fsum(one.due_seconds for one in agents)
    return 100.0 * (fsum(one.paid_seconds for one in agents) / due) if due else None
