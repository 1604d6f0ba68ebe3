"""The scheduler's micro service: registry, lists, pings by hand, and the fleet in numbers.

An answer takes into account every registration and removal acknowledged before the request, by
whichever scheduler: it waits until the directory has caught up with the bucket.
"""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import structlog
from msgspec.structs import replace
from nats.micro.request import Request

from bus.client import audit
from bus.client.audit import UNNAMED_ACTOR
from bus.clock import boottime
from bus.contract import subjects
from bus.contract.fleet_map import FleetMapPage, FleetMapRequest
from bus.contract.labels import LabelsRequest
from bus.contract.messages import Message, decode, encode
from bus.contract.questions import (
    MAX_REGISTRATION_BYTES,
    MAX_REGISTRATION_DEPTH,
    Agent,
    AgentPage,
    BridgeRequest,
    ChangeRequest,
    ExpectedGpus,
    ExpectGpusRequest,
    Fleet,
    GetRequest,
    ListRequest,
    Ping,
    RegisterReply,
    RegisterRequest,
    SchedulerStats,
)
from bus.errors import RefusedError
from bus.rate_limit import RateLimit
from bus.transport import micro_services
from bus.transport.bus_clock import BusClock
from bus.transport.connection import Client, reply_subject
from bus.transport.hedging import HedgedEndpoints
from bus.transport.large_answers import fitting, room
from bus.transport.micro_services import Endpoint, serve
from scheduler.fleet.directory import Directory
from scheduler.fleet.fleet_watcher import FleetWatcher
from scheduler.fleet.lists import fleet_map, listing
from scheduler.fleet.lists.agent_facts import AgentFacts
from scheduler.fleet.lists.listing import Matching
from scheduler.fleet.lists.views import agent_view
from scheduler.fleet.registry import Registration, Registry, unknown
from scheduler.fleet.rules import by_http, expected_gpus, labels
from scheduler.fleet.tracked import Tracked
from scheduler.ping.live_events import LiveEvents
from scheduler.ping.loop import PingLoop

log = structlog.get_logger("scheduler.endpoints")

# Own registrations of one host that the audit log takes: ten at once, then six an hour.
OWN_ENTRIES_AT_ONCE = 10.0
OWN_ENTRIES_PER_SECOND = 6 / 3600
# Registrations that a host may make: an agent registers when it starts and when it reconnects.
OWN_AT_ONCE = 100.0
OWN_PER_SECOND = 1.0
ABOUT = "pings every agent when it is due, and keeps the registry"

HOLDING_TROUBLE_SECONDS = 15.0


class Removed(Message, kw_only=True, frozen=True):
    """The reply to a removal."""

    agent_id: str


class SchedulerEndpoints:
    """One handler for each subject. `stats` returns the scheduler's own figures."""

    def __init__(
        self,
        client: Client,
        directory: Directory,
        registry: Registry,
        watcher: FleetWatcher,
        loop: PingLoop,
        events: LiveEvents,
        bus_clock: BusClock,
        stats: Callable[[], SchedulerStats],
    ) -> None:
        self._client = client
        self._directory = directory
        self._registry = registry
        self._watcher = watcher
        self._loop = loop
        self._events = events
        self._bus_clock = bus_clock
        self._stats = stats
        self._facts = AgentFacts(directory)
        self._own_entries = RateLimit(OWN_ENTRIES_PER_SECOND, OWN_ENTRIES_AT_ONCE)
        self._own_registrations = RateLimit(OWN_PER_SECOND, OWN_AT_ONCE)
        self._left_out: Counter[str] = Counter()  # own registrations that were not recorded

    @asynccontextmanager
    async def serving(
        self,
        changes: list[Endpoint],
        looks: list[Endpoint],
        host_facing: Client,
    ) -> AsyncIterator[None]:
        """Answers for the length of a block, at the other endpoints too.

        `looks` are questions that change nothing, which may come a second time. Hosts register
        themselves over `host_facing` (bus.transport.inbound_limit).
        """
        changes = [
            *changes,
            Endpoint("enrol", subjects.ENROL_ALL, self.enrol),
            Endpoint("remove", subjects.REMOVE_ALL, self.remove),
            Endpoint("expect-gpus", subjects.EXPECT_GPUS_ALL, self.expect_gpus),
            Endpoint("labels", subjects.LABELS_ALL, self.change_labels),
            Endpoint("bridge", subjects.BRIDGE_ALL, self.bridge),
            Endpoint("ping", subjects.PING_NOW_ALL, self.ping_now),
            # every scheduler hears this one
            Endpoint("stats", subjects.STATS, self.stats, group=self._stats().instance),
        ]
        looks = [
            *looks,
            Endpoint("get", subjects.GET_ALL, self.get),
            Endpoint("expected-gpus", subjects.EXPECTED_GPUS_ALL, self.expected_gpus),
            Endpoint("list", subjects.LIST, self.list),
            Endpoint("fleet", subjects.FLEET, self.fleet),
            Endpoint("fleet-map", subjects.FLEET_MAP, self.fleet_map),
        ]
        hedged = HedgedEndpoints(self._client, looks)
        service = await serve(
            self._client,
            subjects.SCHEDULER_SERVICE,
            ABOUT,
            [*changes, *hedged.endpoints],
        )
        registering = Endpoint("register", subjects.REGISTER_ALL, self.register)
        registrations = await micro_services.add_elsewhere(service, host_facing, registering)
        await host_facing.flush()
        await hedged.listen()
        try:
            yield
        finally:
            await micro_services.remove(service, registrations)
            await service.stop()

    async def register(self, request: Request) -> RegisterReply:
        """Answers `gpuping.registry.register.<id>`, where agents register themselves.

        Raises RefusedError 429 for a host that does nothing else.
        """
        agent_id = subjects.last_token(request.subject)
        by_agent = reply_subject(request).startswith(f"{subjects.inbox_prefix(agent_id)}.")
        if by_agent and self._own_registrations.take(agent_id, boottime()):
            raise RefusedError(429, f"{agent_id} registers too often: at most once a second")
        body = _registration(request.data)
        registration = await self._registry.register(agent_id, body, self._bus_clock.now())
        if by_agent or not body.audited:
            actor = f"agent {agent_id}" if by_agent else UNNAMED_ACTOR
            await self._record_registration(agent_id, actor, registration, by_agent=by_agent)
        return self._registered(agent_id, registration)

    async def enrol(self, request: Request) -> RegisterReply:
        """Answers `gpuping.registry.enrol.<id>`, where operators register agents."""
        agent_id = subjects.last_token(request.subject)
        body = _registration(request.data)
        registration = await self._registry.enrol(agent_id, body, self._bus_clock.now())
        if not body.audited:
            await self._record_registration(agent_id, UNNAMED_ACTOR, registration, by_agent=False)
        return self._registered(agent_id, registration)

    def _registered(self, agent_id: str, registration: Registration) -> RegisterReply:
        view = self._view(registration.tracked)
        if registration.created:
            self._events.add_registry_change("registered", agent_id, view)
        return RegisterReply(agent=view, created=registration.created)

    async def _record_registration(
        self,
        agent_id: str,
        actor: str,
        registration: Registration,
        *,
        by_agent: bool,
    ) -> None:
        """Records a registration that changed something: agents register at each start.

        A host whose own registration changes all the time would push the entries of everybody else
        out of the log. Of those only some are recorded, and the next entry says how many were not.
        """
        after = registration.tracked.entry
        if registration.before == after:
            return
        if by_agent and self._own_entries.take(agent_id, boottime()):
            if agent_id not in self._left_out:
                log.warning(
                    "audit_entries_left_out", agent_id=agent_id, action="see its next entry"
                )
            self._left_out[agent_id] += 1
            return
        before = registration.before
        await audit.record(
            self._client,
            "register",
            actor,
            agent_id=agent_id,
            before=before,
            after=after,
            left_out=self._left_out.pop(agent_id, 0),
        )

    async def remove(self, request: Request) -> Removed:
        """Answers `gpuping.registry.remove.<id>`."""
        agent_id = subjects.last_token(request.subject)
        body = decode(request.data or b"{}", ChangeRequest)
        await self._watcher.catch_up()
        ends_at = await self._last_window_end(agent_id)
        await self._registry.remove(agent_id, ends_at or self._bus_clock.now())
        if not body.audited:
            await audit.record(self._client, "remove", UNNAMED_ACTOR, agent_id=agent_id)
        self._events.add_registry_change("removed", agent_id, None)
        return Removed(agent_id=agent_id)

    async def _last_window_end(self, agent_id: str) -> datetime | None:
        """Pings an agent for the last time and returns when the window of its answer ends.

        The removal then takes effect at that moment, so that no time of the enrolment is left
        without a window. Returns None where the agent did not answer.
        """
        ping = await self._loop.last_ping(agent_id)
        if ping is None or ping.outcome != "answered":
            return None
        tracked = self._directory.get(agent_id)
        if tracked is None or tracked.entry is None or ping.pinged_at < tracked.entry.enrolled_at:
            return None
        return ping.pinged_at

    async def get(self, request: Request) -> Agent:
        """Answers `gpuping.registry.get.<id>`."""
        agent_id = subjects.last_token(request.subject)
        body = decode(request.data or b"{}", GetRequest)
        tracked = await self._known(agent_id, removed_too=body.removed_too)
        return self._view(tracked)

    async def expected_gpus(self, request: Request) -> ExpectedGpus:
        """Answers `gpuping.registry.expected-gpus.<id>`, also for a removed agent."""
        agent_id = subjects.last_token(request.subject)
        tracked = await self._known(agent_id, removed_too=True)
        assert tracked.entry is not None  # noqa: S101  # a known agent has one
        return expected_gpus.view(tracked.entry, tracked)

    async def expect_gpus(self, request: Request) -> ExpectedGpus:
        """Answers `gpuping.registry.expect-gpus.<id>`."""
        agent_id = subjects.last_token(request.subject)
        body = decode(request.data, ExpectGpusRequest)
        author = body.author or UNNAMED_ACTOR
        named = replace(body, author=author)
        changed = await self._registry.expect_gpus(agent_id, named, self._bus_clock.now())
        after = changed.tracked.entry
        assert after is not None  # noqa: S101  # it was just written
        if not body.audited:
            await audit.record(
                self._client,
                "expect-gpus",
                author,
                agent_id=agent_id,
                before=changed.before,
                after=after,
            )
        return expected_gpus.view(after, changed.tracked)

    async def change_labels(self, request: Request) -> Agent:
        """Answers `gpuping.registry.labels.<id>` with the agent as it is then."""
        agent_id = subjects.last_token(request.subject)
        body = decode(request.data, LabelsRequest)
        before, after = await self._registry.change(
            agent_id, lambda entry: labels.changed(entry, body)
        )
        if not body.audited:
            await audit.record(
                self._client,
                "labels",
                body.author or UNNAMED_ACTOR,
                agent_id=agent_id,
                before={"labels": before.labels},
                after={"labels": after.labels},
            )
        return self._view(await self._known(agent_id, removed_too=True))

    async def bridge(self, request: Request) -> Agent:
        """Answers `gpuping.registry.bridge.<id>` with the agent as it is then."""
        agent_id = subjects.last_token(request.subject)
        body = decode(request.data, BridgeRequest)
        before, after = await self._registry.change(
            agent_id, lambda entry: by_http.changed(entry, body)
        )
        if after != before:
            log.info("agent_bridge_changed", agent_id=agent_id, by_http=after.by_http)
            await audit.record(
                self._client,
                "bridge",
                "gateway",
                agent_id=agent_id,
                before={"by_http": before.by_http},
                after={"by_http": after.by_http},
            )
        return self._view(await self._known(agent_id, removed_too=True))

    async def _known(self, agent_id: str, *, removed_too: bool) -> Tracked:
        """Returns an agent with an entry. Raises RefusedError 404 where there is none."""
        await self._watcher.catch_up()
        tracked = self._directory.get(agent_id)
        if tracked is None or tracked.entry is None:
            raise unknown(agent_id)
        if not tracked.registered and not removed_too:
            raise unknown(agent_id)
        return tracked

    async def list(self, request: Request) -> AgentPage:
        """Answers `gpuping.registry.list`."""
        body = decode(request.data or b"{}", ListRequest)
        await self._watcher.catch_up()
        matching = Matching(self._directory, self._facts, body, self._bus_clock.now())
        if body.order == "due":
            page = await listing.by_due_time(matching)
        elif listing.is_plain(body):
            page = await listing.by_badness(matching)
        else:
            page = await listing.in_order(matching)
        views = self._views(page.agents)
        next_cursor = None
        if views and (page.more or len(views) < len(page.agents)) and body.order != "due":
            next_cursor = views[-1].agent_id
        return AgentPage(
            agents=views,
            total=page.total,
            next_cursor=next_cursor,
        )

    async def fleet(self, _request: Request) -> Fleet:
        """Answers `gpuping.scheduler.fleet`, also while it cannot work, and then says why."""
        stats = self._stats()
        trouble = stats.bucket_problem or await self._watcher.bucket_trouble()
        if trouble is None:
            await self._watcher.catch_up()
            trouble = self._loop.committer.trouble or _holding_trouble(stats)
        now = self._bus_clock.now()
        directory = self._directory
        counts = directory.counts_by_status(now)
        by_status: dict[str, int] = {}
        for status in listing.WORST_FIRST:
            by_status[status] = counts[status]
        return Fleet(
            agents=len(directory),
            pings=directory.totals["pings"],
            missed=directory.totals["missed"],
            due=len(directory.due(now)),
            in_flight=self._loop.pinger.in_flight,
            by_status=by_status,
            next_ping_at=directory.next_ping_at(now),
            duplicate_ids=len(directory.duplicate_ids),
            trouble=trouble,
            remarks=_remarks(stats),
            gpus=await self._facts.count_gpus(),
            base_interval_minutes=directory.policy.base_seconds / 60.0,
        )

    async def fleet_map(self, request: Request) -> FleetMapPage:
        """Answers `gpuping.scheduler.fleet-map`."""
        body = decode(request.data or b"{}", FleetMapRequest)
        await self._watcher.catch_up()
        return await fleet_map.page(self._directory, self._facts, body, self._bus_clock.now())

    async def ping_now(self, request: Request) -> Ping:
        """Answers `gpuping.scheduler.ping.<id>` with the outcome, which counts like any other."""
        agent_id = subjects.last_token(request.subject)
        body = decode(request.data or b"{}", ChangeRequest)
        await self._watcher.catch_up()
        ping = await self._loop.ping_now(agent_id)
        if not body.audited:
            await audit.record(
                self._client, "ping", UNNAMED_ACTOR, agent_id=agent_id, after=audit.outcome(ping)
            )
        return ping

    async def stats(self, _request: Request) -> SchedulerStats:
        """Answers `gpuping.scheduler.stats` with its own figures; each scheduler answers."""
        return self._stats()

    def _views(self, agents: Iterable[Tracked]) -> tuple[Agent, ...]:
        """Returns the views that fit into one message of the bus, from the first on.

        A thousand hosts with many GPUs each may be too large. One that is too large by itself, with
        metadata that was registered before that was limited, is shown without it: otherwise no page
        would go on from there.
        """
        most_bytes = room(self._client)
        return fitting(self._shown(agents, most_bytes), most_bytes)

    def _shown(self, agents: Iterable[Tracked], most_bytes: int) -> Iterator[Agent]:
        for tracked in agents:
            view = self._view(tracked)
            if len(encode(view)) >= most_bytes:
                view = replace(view, metadata={}, capabilities=())
            yield view

    def _view(self, tracked: Tracked) -> Agent:
        return agent_view(tracked, self._directory.policy, self._bus_clock.now())


def _registration(data: bytes) -> RegisterRequest:
    """Returns a registration within the limits that REST has, too.

    Raises RefusedError 413 for one that is too large, and 400 for one that nests too deeply.
    """
    if len(data) > MAX_REGISTRATION_BYTES:
        raise RefusedError(413, f"a registration has at most {MAX_REGISTRATION_BYTES} bytes")
    body = decode(data or b"{}", RegisterRequest)
    if _nests_deeper(body.metadata, MAX_REGISTRATION_DEPTH):
        raise RefusedError(400, f"metadata nests at most {MAX_REGISTRATION_DEPTH} levels")
    return body


def _nests_deeper(value: Any, levels: int) -> bool:
    if not isinstance(value, (dict, list)):
        return False
    if levels < 0:
        return True
    children = value.values() if isinstance(value, dict) else value
    return any(_nests_deeper(child, levels - 1) for child in children)


def _holding_trouble(stats: SchedulerStats) -> str | None:
    """Returns a sentence while pings are held for so long that somebody should look."""
    if stats.holding_seconds <= HOLDING_TROUBLE_SECONDS:
        return None
    reason = "the history stream does not follow the bucket"
    if stats.layout_unfinished is not None:
        reason = stats.layout_unfinished
    return (
        f"{stats.held} pings have been held for {stats.holding_seconds:.0f} s, late and not lost, "
        f"because {reason}"
    )


def _remarks(stats: SchedulerStats) -> tuple[str, ...]:
    """Returns what an operator should put right, although pings go on."""
    remarks = []
    if stats.differing_policies:
        count = len(stats.differing_policies)
        who = "another scheduler judges"
        if count > 1:
            who = f"{count} other schedulers judge"
        remarks.append(f"{who} by other rules: give all the same PING_ settings")
    if stats.lost_enrolments:
        remarks.append(
            f"{stats.lost_enrolments} agents were registered and are gone from the bucket: let "
            "them register again"
        )
    if stats.unsigned_hosts:
        until = "without an end"
        if stats.unsigned_until is not None:
            until = f"until {stats.unsigned_until:%Y-%m-%d %H:%M} UTC"
        remarks.append(
            f"reports of {stats.unsigned_hosts} hosts count {until} though nobody signs them: "
            "`gpuping creds hosts` names them, `gpuping enroll new --id ID` gives a host its keys"
        )
    return (*remarks, *stats.layout_problems)
