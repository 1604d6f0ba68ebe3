"""A host's own view as it is sent: asked for at most once in some seconds, whoever looks."""

import asyncio

import structlog

from bus.client.fleet_client import FleetClient
from bus.clock import utc_now
from bus.contract.explanations import Explanation
from bus.contract.maintenance import Booking, BookingsRequest
from bus.contract.questions import Agent, HistoryReply, HistoryRequest
from bus.errors import BusError, RefusedError
from bus.identity import sealed_links
from bus.identity.sealed_links import LinkContent
from gateway.public import host_view
from gateway.public.host_view import PING_HOURS, PINGS, HostView
from gateway.timed_cache import TimedCache

log = structlog.get_logger("gateway.public.host_views")

VIEW_SECONDS = 20.0
MOST_VIEWS = 500
NOT_NOW = "The month cannot be computed at the moment. Try again in a minute."


class HostViews:
    """The views of one gateway."""

    def __init__(self, fleet_client: FleetClient) -> None:
        self._fleet_client = fleet_client
        self._kept: TimedCache[tuple[str, int, str], HostView | None] = TimedCache(
            VIEW_SECONDS, MOST_VIEWS
        )

    async def view(self, link: LinkContent, month: str) -> HostView | None:
        """The view that a link opens; None for a host that is unknown by now. Raises BusError."""

        async def compute() -> HostView | None:
            return await self._compute(link, month)

        return await self._kept.get((link.agent_id, link.expires_at, month), compute)

    async def _compute(self, link: LinkContent, month: str) -> HostView | None:
        agent_id = link.agent_id
        agent = await self._fleet_client.find_agent(agent_id, removed_too=True)
        if agent is None:
            return None
        conditions = await self._fleet_client.publishing.conditions()
        bookings: tuple[Booking, ...] = ()
        if self._is_registered(agent):
            asked = BookingsRequest(agent_id=agent_id, past_too=True)
            bookings = (await self._fleet_client.maintenance(asked)).bookings
        (explanation, problem), history = await asyncio.gather(
            self._explanation(agent_id, month), self._history(agent_id)
        )
        return host_view.compute(
            agent,
            conditions,
            bookings,
            explanation,
            problem,
            history,
            month,
            utc_now(),
            sealed_links.expiry(link),
        )

    @staticmethod
    def _is_registered(agent: Agent) -> bool:
        if not agent.enrolments:
            return True
        return agent.enrolments[-1].until is None

    async def _explanation(
        self, agent_id: str, month: str
    ) -> tuple[Explanation | None, str | None]:
        """The month, or why there is none."""
        try:
            return await self._fleet_client.explanation(agent_id, month), None
        except RefusedError as error:
            if error.code >= 500:
                return None, NOT_NOW
            return None, f"{error.detail[:1].upper()}{error.detail[1:]}."
        except BusError as error:
            log.warning("host_view_without_month", detail=str(error))
            return None, NOT_NOW

    async def _history(self, agent_id: str) -> HistoryReply | None:
        try:
            request = HistoryRequest(hours=PING_HOURS, limit=PINGS)
            return await self._fleet_client.history(agent_id, request)
        except BusError as error:
            log.warning("host_view_without_history", detail=str(error))
            return None
