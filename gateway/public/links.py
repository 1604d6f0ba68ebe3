"""Opens the links that an operator made: whose badge, whose view, and whether still."""

from bus.client.fleet_client import FleetClient
from bus.clock import utc_now
from bus.contract.publishing import LinkKey, LinkKind
from bus.identity import sealed_links
from bus.identity.sealed_links import LinkContent
from gateway.timed_cache import TimedCache

# Of the key and of an agent's revocations together: so long a revoked link may still be good.
# However many wrong links come, the scheduler is asked no more often.
KEY_SECONDS = 1.0
REVOCATION_SECONDS = 1.0
MOST_AGENTS = 10_000
_FLEET = ""


class Links:
    """The links of this fleet. What is known of them comes from the scheduler, and is kept."""

    def __init__(self, fleet_client: FleetClient) -> None:
        self._fleet_client = fleet_client
        self._keys: TimedCache[str, LinkKey] = TimedCache(KEY_SECONDS, 1)
        self._of_agents: TimedCache[str, LinkKey] = TimedCache(REVOCATION_SECONDS, MOST_AGENTS)

    async def open(self, secret: str, kind: LinkKind) -> LinkContent | None:
        """What a link is for; None for one that is not, or is no longer, good.

        Raises BusError where that cannot be known.
        """
        known = await self._keys.get(_FLEET, self._fleet_client.publishing.link_key)
        content = sealed_links.unseal(known.key, secret, kind, utc_now())
        if content is None:
            return None
        agent_id = content.agent_id

        async def ask() -> LinkKey:
            return await self._fleet_client.publishing.link_key(agent_id)

        of_agent = await self._of_agents.get(agent_id, ask)
        if of_agent.key != known.key:
            return None  # another key was made meanwhile
        revoked = of_agent.revoked_before
        if revoked is not None and content.made_at <= revoked.timestamp() * 1000:
            return None
        return content
