"""The fleet's month under other rules: who gains, who loses.

Windows of one agent that are equal under every rule are summed by the database first: a month of 10,000 agents
is then a few ten thousand rows and not thirty million.
"""

from itertools import groupby

from bus.statements import AgentReplay, FleetReplay, FleetReplayRequest
from storage import rules
from storage.database import rows_of, sql
from storage.statement import Period, month_bounds
from storage.store import Reader
from storage.windows import Milliseconds

LISTED = 1000


def fleet(reader: Reader, request: FleetReplayRequest, threshold: float) -> FleetReplay:
    """Each agent's pay over the time that its reports cover, under the rules in force and under the others."""
    then_threshold = threshold if request.threshold is None else request.threshold
    now = rules.threshold_rules(threshold)
    then = rules.threshold_rules(then_threshold) if request.policy is None else rules.read_rules(request.policy)
    since_us, until_us = month_bounds(request.month)
    text = reader.partitions.fill(sql("replay_windows"), since_us, until_us)
    rows = rows_of(reader.cursor, text, {"since_us": since_us, "until_us": until_us})
    agents = []
    for agent, windows in groupby(rows, key=lambda row: row[0]):
        judged = [rules.Judged(Milliseconds(*row[2:7]), True, True, row[1]) for row in windows]
        period = Period(0, sum(window.account.total for window in judged) * 1000)
        replay = rules.replay(judged, period, (now, threshold), (then, then_threshold))
        agents.append(
            AgentReplay(
                agent_id=reader.known.agent_id(agent),
                uptime_percent=replay.now.uptime_percent,
                now_paid_percent=replay.now.paid_percent,
                then_paid_percent=replay.then.paid_percent,
                change_percent=replay.change_percent,
                change=replay.change,
            )
        )
    agents.sort(key=lambda one: (-abs(one.change_percent), one.agent_id))
    counts = {word: sum(1 for one in agents if one.change == word) for word in ("gains", "loses", "same")}
    return FleetReplay(month=request.month, now=now.name, then=then.name, agents=tuple(agents[:LISTED]), **counts)
