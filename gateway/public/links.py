"""Opens the links that an operator made: whose badge, whose view, and whether still."""

from bus.client.fleet_client import FleetClient
from bus.clock import boottime, utc_now
from bus.contract.publishing import LinkKey, LinkKind
from bus.identity import sealed_links
from bus.identity.sealed_links import LinkContent
from gateway.public.timed_cache import TimedCache

KEY_SECONDS = 2.0  # so long a revoked link may still be good
SOONEST_SECONDS = 1.0  # between two questions for the key, however many wrong links come
MOST_AGENTS = 10_000


class Links:
    """The links of this fleet. Keys come from the scheduler, and are kept for KEY_SECONDS."""

    def __init__(self, fleet_client: FleetClient) -> None:
        self._fleet_client = fleet_client
        self._key = ""
        self._asked_at = -KEY_SECONDS
        self._of_agents: TimedCache[str, LinkKey] = TimedCache(KEY_SECONDS, MOST_AGENTS)

    async def open(self, secret: str, kind: LinkKind) -> LinkContent | None:
        """What a link is for; None for one that is not, or is no longer, good.

        Raises BusError where that cannot be known.
        """
        await self._refresh(KEY_SECONDS)
        content = self._unsealed(secret, kind)
        if content is None:
            await self._refresh(SOONEST_SECONDS)  # another key may have been made
            content = self._unsealed(secret, kind)
        if content is None:
            return None
        agent_id = content.agent_id

        async def ask() -> LinkKey:
            return await self._fleet_client.publishing.link_key(agent_id)

        found = await self._of_agents.get(agent_id, ask)
        if found.key != self._key:
            self._key = found.key
            return self._unsealed(secret, kind)
        revoked = found.revoked_before
        if revoked is not None and content.made_at <= revoked.timestamp() * 1000:
            return None
        return content

    def _unsealed(self, secret: str, kind: LinkKind) -> LinkContent | None:
        return sealed_links.unseal(self._key, secret, kind, utc_now())

    async def _refresh(self, seconds: float) -> None:
        """Asks for the key where it was asked for longer ago than that."""
        now = boottime()
        if now - self._asked_at < seconds:
            return
        found = await self._fleet_client.publishing.link_key()
        self._key = found.key
        self._asked_at = now
