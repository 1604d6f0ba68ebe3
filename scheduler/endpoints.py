"""The scheduler's micro service: registry, lists, pings by hand, the fleet in numbers.

Whoever asks sees every registration and removal acknowledged before, by whichever scheduler: an answer waits
until the directory has followed the bucket that far.
"""

import asyncio
import heapq
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from nats.micro.request import Request
from nats.micro.service import Service

from bus.clock import utc_now
from bus.contract import subjects
from bus.contract.messages import Message, Status, decode
from bus.contract.questions import (
    Agent,
    AgentPage,
    Fleet,
    GetRequest,
    ListRequest,
    Ping,
    RegisterReply,
    RegisterRequest,
    SchedulerStats,
)
from bus.errors import UnavailableError
from bus.transport import bucket
from bus.transport.large_answers import fitting, room
from bus.transport.micro_services import Endpoint, serve
from scheduler.fleet.directory import Tracked
from scheduler.fleet.registry import unknown
from scheduler.fleet.views import agent_view

if TYPE_CHECKING:
    from scheduler.service import Scheduler

CATCH_UP_SECONDS = 5.0
SCAN_STEP = 5000  # agents looked at before the loop gets its turn again
WORST_SCAN = 20_000
BADNESS: tuple[Status, ...] = ("missing", "poor", "recovering", "pending", "maintenance", "healthy")


class Removed(Message, kw_only=True, frozen=True):
    """An agent that is gone."""

    agent_id: str


class Answers:
    """One handler a subject."""

    def __init__(self, scheduler: "Scheduler") -> None:
        self._scheduler = scheduler

    async def serve(self) -> Service:
        """Answers from now on."""
        endpoints = [
            Endpoint("register", subjects.REGISTER_ALL, self.register),
            Endpoint("remove", subjects.REMOVE_ALL, self.remove),
            Endpoint("get", subjects.GET_ALL, self.get),
            Endpoint("list", subjects.LIST, self.list),
            Endpoint("fleet", subjects.FLEET, self.fleet),
            Endpoint("ping", subjects.PING_NOW_ALL, self.ping_now),
            Endpoint("stats", subjects.STATS, self.stats),
        ]
        about = "pings every agent when it is due, and keeps the registry"
        return await serve(self._scheduler.client, subjects.SCHEDULER_SERVICE, about, endpoints)

    async def register(self, request: Request) -> RegisterReply:
        """`gpuping.registry.register.<id>`."""
        agent_id = subjects.last_token(request.subject)
        asked = decode(request.data or b"{}", RegisterRequest)
        tracked, created = await self._scheduler.registry.register(agent_id, asked, utc_now())
        reply = RegisterReply(agent=self._view(tracked), created=created)
        if created:
            self._scheduler.events.registry("registered", agent_id, reply.agent)
        return reply

    async def remove(self, request: Request) -> Removed:
        """`gpuping.registry.remove.<id>`."""
        agent_id = subjects.last_token(request.subject)
        await self._scheduler.registry.remove(agent_id, utc_now())
        self._scheduler.events.registry("removed", agent_id, None)
        return Removed(agent_id=agent_id)

    async def get(self, request: Request) -> Agent:
        """`gpuping.registry.get.<id>`."""
        agent_id = subjects.last_token(request.subject)
        asked = decode(request.data or b"{}", GetRequest)
        await self._caught_up()
        tracked = self._scheduler.directory.get(agent_id)
        if (
            tracked is None
            or tracked.entry is None
            or not (tracked.registered or asked.removed_too)
        ):
            raise unknown(agent_id)
        return self._view(tracked)

    async def list(self, request: Request) -> AgentPage:
        """`gpuping.registry.list`."""
        asked = decode(request.data or b"{}", ListRequest)
        await self._caught_up()
        match asked.order:
            case "due":
                return self._due_page(asked)
            case "worst":
                return self._worst_page(asked)
            case "id":
                return await self._id_page(asked)

    async def fleet(self, _request: Request) -> Fleet:
        """`gpuping.scheduler.fleet`."""
        await self._caught_up()
        directory, now = self._scheduler.directory, utc_now()
        return Fleet(
            agents=len(directory),
            pings=directory.totals["pings"],
            missed=directory.totals["missed"],
            due=len(directory.due(now)),
            in_flight=self._scheduler.loop.pinger.in_flight,
            by_status={status: len(directory.by_status.get(status, ())) for status in BADNESS},
            next_ping_at=directory.next_ping_at(now),
        )

    async def ping_now(self, request: Request) -> Ping:
        """`gpuping.scheduler.ping.<id>`: waits for the outcome, which counts."""
        agent_id = subjects.last_token(request.subject)
        await self._caught_up()
        return await self._scheduler.loop.ping_now(agent_id)

    async def stats(self, _request: Request) -> SchedulerStats:
        """`gpuping.scheduler.stats`: of the scheduler that happens to answer."""
        return self._scheduler.stats()

    async def _caught_up(self) -> None:
        client, watcher = self._scheduler.client, self._scheduler.entries
        if not client.is_connected:
            raise UnavailableError("the bus is not connected")
        newest = await bucket.last_sequence(client, subjects.agent_key("*"))
        try:
            await watcher.reached(newest, CATCH_UP_SECONDS)
        except TimeoutError:
            raise UnavailableError(
                "the scheduler is still catching up with the registry: try again"
            ) from None

    async def _id_page(self, asked: ListRequest) -> AgentPage:
        """In order of id. Counting what fits on all pages means looking at every agent, so the loop gets its turn."""
        directory = self._scheduler.directory
        page: deque[Tracked] = deque()
        total, more = 0, False
        for looked, agent_id in enumerate(directory.ids_after(None), 1):
            tracked = directory.get(agent_id)
            if tracked is not None and self._fits(tracked, asked):
                total += 1
                if asked.cursor is None or agent_id > asked.cursor:
                    more = len(page) >= asked.limit
                    if not more:
                        page.append(tracked)
            if looked % SCAN_STEP == 0:
                await asyncio.sleep(0)
        views = self._fitting(page)
        more = more or len(views) < len(page)
        return AgentPage(
            agents=views, total=total, next_cursor=views[-1].agent_id if more and views else None
        )

    def _due_page(self, asked: ListRequest) -> AgentPage:
        directory = self._scheduler.directory
        due = {
            i: at
            for i, at in directory.due(utc_now()).items()
            if (t := directory.get(i)) and self._fits(t, asked)
        }
        first = heapq.nsmallest(asked.limit, due, key=lambda agent_id: due[agent_id])
        return AgentPage(agents=self._views(first), total=len(due))

    def _worst_page(self, asked: ListRequest) -> AgentPage:
        """By badness of status, then by uptime; of a very large group only a part is compared."""
        directory = self._scheduler.directory
        ids: list[str] = []
        for status in BADNESS:
            if len(ids) >= asked.limit:
                break
            group = islice(directory.by_status.get(status, ()), WORST_SCAN)
            ids += heapq.nsmallest(asked.limit - len(ids), group, key=self._uptime)
        return AgentPage(agents=self._views(ids), total=len(directory))

    def _uptime(self, agent_id: str) -> tuple[float, str]:
        tracked = self._scheduler.directory.get(agent_id)
        state = tracked.state if tracked else None
        return (
            state.uptime_percent if state and state.uptime_percent is not None else 101.0,
            agent_id,
        )

    def _fits(self, tracked: Tracked, asked: ListRequest) -> bool:
        if asked.status and self._scheduler.directory.status_of(tracked, utc_now()) != asked.status:
            return False
        return not asked.capability or (
            tracked.entry is not None and asked.capability in tracked.entry.capabilities
        )

    def _views(self, ids: Sequence[str]) -> tuple[Agent, ...]:
        found = (self._scheduler.directory.get(agent_id) for agent_id in ids)
        return self._fitting(tracked for tracked in found if tracked is not None)

    def _fitting(self, found: Iterable[Tracked]) -> tuple[Agent, ...]:
        """A thousand hosts of many GPUs each are more than the bus carries at once."""
        return fitting((self._view(tracked) for tracked in found), room(self._scheduler.client))

    def _view(self, tracked: Tracked) -> Agent:
        return agent_view(tracked, self._scheduler.policy, utc_now())
