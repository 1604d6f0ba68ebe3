"""Adds the uptime of the last 24 hours to the agents that a list shows. Pure.

Storage has it: the time that windows account for, and the time in which a host was asked and never
answered, which counts against it. Nothing is added here, so that a list, the history and the
statement come to one figure.
"""

from msgspec.structs import replace

from bus.contract.questions import Agent, UptimesReply


def with_uptime(agent: Agent, reply: UptimesReply) -> Agent:
    """Returns the agent with its `uptime_24h_percent`; None where no time can be judged."""
    return replace(
        agent,
        uptime_24h_percent=reply.uptimes.get(agent.agent_id),
        uptime_24h_seconds=reply.judged_seconds.get(agent.agent_id, 0.0),
    )
