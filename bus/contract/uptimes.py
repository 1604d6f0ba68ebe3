"""The uptime of an agent's last hours as lists show it: what history holds, and what nobody has told yet.

A host that misses its pings has accounted for no second since its last answer. Until it does, that time is unknown,
and unknown counts against uptime; else a dead host would keep the 100 % that it died with.
"""

from msgspec.structs import replace

from bus.contract.questions import Agent, UptimesReply

HOURS = 24.0


def with_uptime(agent: Agent, reply: UptimesReply) -> Agent:
    """The agent with its `uptime_24h_percent`; None where not a second was accounted for or missed."""
    percent, unreported = reply.uptimes.get(agent.agent_id), _unreported_seconds(agent)
    if unreported > 0.0:
        judged = reply.judged_seconds.get(agent.agent_id, 0.0)
        percent = (percent or 0.0) * judged / (judged + unreported)
    return replace(agent, uptime_24h_percent=percent)


def _unreported_seconds(agent: Agent) -> float:
    if agent.status != "missing" or agent.last_ping_at is None or agent.last_answered_at is None:
        return 0.0
    return min(HOURS * 3600.0, (agent.last_ping_at - agent.last_answered_at).total_seconds())
