"""What the registry says about agents that are asked by HTTP. No I/O."""

from collections.abc import Iterable

from bus.contract.questions import Agent
from bus.networks import AskableNetworks
from gateway.bridge.agent_url import AgentUrlError, parse
from gpuping.output.findings import Finding, note, ok, warning

NAMED_AGENTS = 5


def judge(agents: Iterable[Agent], networks: AskableNetworks | None) -> Finding:
    """Judges all agents that have an agent_url, by the networks that are set here.

    One that is on the bus has its address as a label, and is left out.
    """
    asked = []
    not_asked = []
    for agent in agents:
        if agent.by_http:
            asked.append(agent)
        elif not agent.connected:
            not_asked.append(agent)
    detail = f"{len(asked)} agents are asked by HTTP"
    if networks is None:
        if asked:
            advice = (
                "their reports are not signed; without GATEWAY_BRIDGE_NETWORKS in a gateway "
                "nobody asks them"
            )
            return note("by http", detail, advice)
        return ok("by http", "no agent is asked by HTTP: GATEWAY_BRIDGE_NETWORKS is not set")
    if not not_asked:
        return ok("by http", detail)
    named = [f"{agent.agent_id} ({_why_not(agent, networks)})" for agent in not_asked]
    shown = ", ".join(named[:NAMED_AGENTS])
    if len(named) > NAMED_AGENTS:
        shown += ", ..."
    advice = "list its network in GATEWAY_BRIDGE_NETWORKS, or register it with another agent_url"
    return warning("by http", f"{len(named)} have an agent_url that is not asked: {shown}", advice)


def _why_not(agent: Agent, networks: AskableNetworks) -> str:
    try:
        url = parse(agent.agent_url or "")
    except AgentUrlError as error:
        return str(error)
    refusal = None
    if url.is_address:
        refusal = networks.refusal(url.host)
    return refusal or "see the log of the gateway: agent_not_asked_by_http"
