"""Adds the uptime of the last 24 hours to the agents that a list shows. Pure.

Storage knows only the time that reports cover. A host that misses its pings has reported nothing
since its last answer. Until it reports again that time is unknown, and unknown time counts against
uptime: otherwise a dead host would keep the uptime that it had when it died.
"""

from msgspec.structs import replace

from bus.contract.questions import Agent, UptimesReply

HOURS = 24.0


def with_uptime(agent: Agent, reply: UptimesReply) -> Agent:
    """Returns the agent with its `uptime_24h_percent`; None where no time is judged or missed."""
    percent = reply.uptimes.get(agent.agent_id)
    judged = reply.judged_seconds.get(agent.agent_id, 0.0)
    unreported = _unreported_seconds(agent)
    if unreported > 0.0:
        # Unreported time is judged too, and none of it is good: the share shrinks accordingly.
        percent = (percent or 0.0) * judged / (judged + unreported)
    return replace(agent, uptime_24h_percent=percent, uptime_24h_seconds=judged + unreported)


def _unreported_seconds(agent: Agent) -> float:
    """Returns the time since the last answer of an agent that misses its pings, up to HOURS."""
    if agent.status != "missing" or agent.last_ping_at is None or agent.last_answered_at is None:
        return 0.0
    silent = agent.last_ping_at - agent.last_answered_at
    return min(HOURS * 3600.0, silent.total_seconds())
