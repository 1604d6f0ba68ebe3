"""Whether an agent is asked by HTTP: what may be changed about it, and what not. Pure."""

from msgspec.structs import replace

from bus.contract.messages import AgentEntry
from bus.contract.questions import BridgeRequest
from bus.errors import RefusedError


def changed(entry: AgentEntry, request: BridgeRequest) -> AgentEntry:
    """Returns the entry with what the bridge says of it.

    It stays as it is where another address was registered meanwhile, which the bridge has not
    checked. Raises RefusedError 409 for an agent that answers on the bus itself: whoever could turn
    its reports into unsigned ones could forge them.
    """
    if entry.agent_url != request.agent_url:
        return entry
    if request.by_http and entry.answers_on_bus:
        raise RefusedError(
            409,
            f"agent {entry.agent_id!r} answers on the bus itself; to have it asked by HTTP, "
            "remove it and register it again",
        )
    return replace(entry, by_http=request.by_http)
