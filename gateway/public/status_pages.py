"""Status pages as they are sent: each is computed at most once a minute, for all its visitors.

Nobody signs in to see them, so that anybody can ask as often as he likes. What a page costs must
not depend on that. A page outlives outages: while the scheduler or storage does not answer, the
last page is sent, which says how old it is.
"""

import asyncio
import gzip
import hashlib
from datetime import datetime
from typing import NamedTuple

import msgspec
import structlog
from msgspec.structs import replace

from bus.client.fleet_client import FleetClient
from bus.clock import boottime, utc_now
from bus.contract.maintenance import BookingsRequest
from bus.contract.publishing import MAX_HOSTS, HostDaysRequest, StatusPage
from bus.contract.questions import Agent
from bus.errors import BusError
from gateway.public import status_html, status_page
from gateway.public.status_page import History, StatusView

log = structlog.get_logger("gateway.public.status_pages")

PAGE_SECONDS = 60.0
DEFINITION_SECONDS = 2.0  # so long a removed page may still be seen
AGAIN_SECONDS = 10.0  # after a failure
AT_ONCE = 20  # questions about single agents


class Body(NamedTuple):
    """A document as it is sent."""

    data: bytes
    compressed: bytes
    etag: str


class Kept(NamedTuple):
    """A page that was computed. It is computed again from `until` (CLOCK_BOOTTIME) on."""

    page: StatusPage
    view: StatusView
    history: History | None
    html: Body
    json: Body
    until: float


class StatusPages:
    """The pages of one gateway. A page is kept for `page_seconds`."""

    def __init__(self, fleet_client: FleetClient, page_seconds: float = PAGE_SECONDS) -> None:
        self._fleet_client = fleet_client
        self._page_seconds = page_seconds
        self._definitions: dict[str, StatusPage] | None = None
        self._definitions_until = 0.0
        self._kept: dict[str, Kept] = {}
        self._running: dict[str, asyncio.Task[Kept]] = {}
        self._defining: asyncio.Task[dict[str, StatusPage]] | None = None
        self.computed = 0  # how often a page was computed

    async def page(self, name: str) -> Kept | None:
        """A page; None where there is none. Raises BusError before it was ever computed."""
        definition = (await self._defined()).get(name)
        if definition is None:
            return None
        kept = self._kept.get(name)
        if kept is not None and kept.page == definition and boottime() < kept.until:
            return kept
        running = self._running.get(name)
        if running is None:
            running = asyncio.create_task(self._compute(definition))
            self._running[name] = running
            running.add_done_callback(lambda _: self._running.pop(name, None))
        return await asyncio.shield(running)

    async def _defined(self) -> dict[str, StatusPage]:
        """The definitions by name, as they are or were when they could be read last."""
        if self._definitions is not None and boottime() < self._definitions_until:
            return self._definitions
        if self._defining is None:
            self._defining = asyncio.create_task(self._read_definitions())
            self._defining.add_done_callback(self._forget_defining)
        return await asyncio.shield(self._defining)

    def _forget_defining(self, _: object) -> None:
        self._defining = None

    async def _read_definitions(self) -> dict[str, StatusPage]:
        try:
            pages = (await self._fleet_client.publishing.pages()).pages
        except BusError:
            if self._definitions is None:
                raise
        else:
            self._definitions = {page.name: page for page in pages}
            for name in set(self._kept) - set(self._definitions):
                del self._kept[name]
        self._definitions_until = boottime() + DEFINITION_SECONDS
        return self._definitions

    async def _compute(self, page: StatusPage) -> Kept:
        before = self._kept.get(page.name)
        if before is not None and before.page != page:
            before = None
        try:
            kept = await self._computed(page, before)
        except BusError as error:
            if before is None:
                raise
            log.warning("status_page_stale", page=page.name, detail=str(error))
            view = replace(before.view, stale=True)
            seconds = min(AGAIN_SECONDS, self._page_seconds)
            kept = _kept(page, view, before.history, seconds)
        self._kept[page.name] = kept
        return kept

    async def _computed(self, page: StatusPage, before: Kept | None) -> Kept:
        self.computed += 1
        now = utc_now()
        agents = await self._agents(page)
        bookings = await self._fleet_client.maintenance(BookingsRequest(past_too=True))
        history = before.history if before is not None else None
        seconds = self._page_seconds
        is_stale = False
        try:
            history = await self._history(agents)
        except BusError as error:
            log.warning("status_page_history_stale", page=page.name, detail=str(error))
            seconds = min(AGAIN_SECONDS, self._page_seconds)
            is_stale = True
        view = status_page.compute(
            page,
            agents,
            bookings.bookings,
            history,
            now,
            history_stale=is_stale,
        )
        return _kept(page, view, history, seconds)

    async def _history(self, agents: list[Agent]) -> History:
        now = utc_now()
        agent_ids = tuple(agent.agent_id for agent in agents)
        if not agent_ids:
            return History(as_of=now, hosts={})
        enrolled = {agent.agent_id: _first_enrolled(agent) for agent in agents}
        request = HostDaysRequest(agent_ids=agent_ids, until=now, enrolled_since=enrolled)
        reply = await self._fleet_client.publishing.host_days(request)
        return History(as_of=now, hosts={host.agent_id: host for host in reply.hosts})

    async def _agents(self, page: StatusPage) -> list[Agent]:
        """The page's agents in the order of their numbers. Those that were removed are left out."""
        if page.label is not None:
            return await self._agents_with(page.label)
        semaphore = asyncio.Semaphore(AT_ONCE)

        async def find(agent_id: str) -> Agent | None:
            async with semaphore:
                return await self._fleet_client.find_agent(agent_id)

        found = await asyncio.gather(*[find(agent_id) for agent_id in page.agents])
        return [agent for agent in found if agent is not None]

    async def _agents_with(self, label: str) -> list[Agent]:
        """The agents that have a label, the first registered first: new ones come at the end."""
        found = await self._fleet_client.agents_with(label)
        found.sort(key=lambda agent: (agent.registered_at, agent.agent_id))
        return found[:MAX_HOSTS]


def _first_enrolled(agent: Agent) -> datetime:
    if agent.enrolments:
        return agent.enrolments[0].since
    return agent.registered_at


def _kept(
    page: StatusPage,
    view: StatusView,
    history: History | None,
    seconds: float,
) -> Kept:
    return Kept(
        page=page,
        view=view,
        history=history,
        html=_body(status_html.render(view).encode()),
        json=_body(msgspec.json.encode(view)),
        until=boottime() + seconds,
    )


def _body(data: bytes) -> Body:
    digest = hashlib.sha256(data).hexdigest()
    return Body(data, gzip.compress(data, 6, mtime=0), f'"{digest[:20]}"')
