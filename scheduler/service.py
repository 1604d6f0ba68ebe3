"""One scheduler, assembled. Any number of them share the work on one bus, without a leader."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

import nats.errors
import structlog
from prometheus_client.core import Metric

from bus.background import StartTask, background
from bus.clock import utc_now
from bus.contract import subjects
from bus.contract.enrolment import CloseConnections
from bus.contract.messages import AgentState, UptimeReport, decode
from bus.contract.questions import SchedulerStats
from bus.errors import BadMessageError
from bus.identity.host import fleet_of
from bus.monitoring.families import gauge
from bus.monitoring.scheduler_families import scheduler_families
from bus.settings import Settings
from bus.transport import connection, layout
from bus.transport.availability import when_available
from bus.transport.bus_clock import BusClock
from bus.transport.connection import Client
from bus.transport.inbound_limit import InboundLimit
from scheduler import maintenance_endpoints
from scheduler.cluster.bus_disks import BusDisks
from scheduler.cluster.cluster import Cluster
from scheduler.cluster.history_position import HistoryPosition
from scheduler.cluster.peers import Peers, new_instance
from scheduler.cluster.presence import LOOK_SECONDS, Presence
from scheduler.consumer_endpoints import ConsumerEndpoints
from scheduler.endpoints import SchedulerEndpoints
from scheduler.enrolment_endpoints import EnrolmentEndpoints
from scheduler.fleet.directory import Directory
from scheduler.fleet.fleet_watcher import FleetWatcher
from scheduler.fleet.garbage_collection import FleetFreezer
from scheduler.fleet.lists.views import agent_view
from scheduler.fleet.registry import Registry
from scheduler.fleet.rules import duplicate_ids
from scheduler.fleet.timer_reconciler import TimerReconciler
from scheduler.fleet.unsigned_hosts import UnsignedHosts
from scheduler.maintenance_endpoints import MaintenanceEndpoints
from scheduler.ping.attempt import PingAttempt
from scheduler.ping.bucket_guard import BucketGuard
from scheduler.ping.live_events import LiveEvents
from scheduler.ping.loop import PingLoop
from scheduler.ping.pinger import PingLimits
from scheduler.ping.timer_deferral import TimerDeferral
from scheduler.policy import LONGEST_INTERVAL_SECONDS, Policy
from scheduler.publishing_endpoints import PublishingEndpoints
from scheduler.stats import new_counters

FLOODS = "it sends questions without end"  # why connections are closed
log = structlog.get_logger("scheduler")


def policy_of(settings: Settings) -> Policy:
    """Returns the rules that the settings give."""
    return Policy(
        base_seconds=min(settings.base_interval_seconds, LONGEST_INTERVAL_SECONDS),
        max_seconds=min(settings.max_interval_seconds, LONGEST_INTERVAL_SECONDS),
        multiplier=settings.PING_ESCALATION_MULTIPLIER,
        threshold_percent=settings.PING_UPTIME_THRESHOLD,
        recovery_pings=settings.PING_RECOVERY_THRESHOLD_PINGS,
        grace=settings.PING_FIRST_PING_GRACE_PERIOD,
    )


def limits_of(settings: Settings) -> PingLimits:
    """Returns what the settings say about one ping."""
    return PingLimits(
        in_flight=settings.PING_MAX_CONCURRENT_AGENTS,
        timeout_seconds=settings.PING_RESPONSE_TIMEOUT_SECONDS,
        believes_unheard=settings.PING_UNHEARD_TIME == "believed",
        fleet=fleet_of(settings.NATS_CREDS),
        requires_signed=bool(settings.GPUPING_REQUIRE_SIGNED),
        unsigned_until=settings.GPUPING_UNSIGNED_UNTIL,
    )


def fingerprint(settings: Settings) -> str:
    """Returns a short text that is the same for schedulers that judge alike."""
    judged_by = (policy_of(settings), limits_of(settings)._replace(in_flight=0))
    digest = hashlib.blake2b(repr(judged_by).encode(), digest_size=8)
    return digest.hexdigest()


class Scheduler:
    """Makes the parts of one scheduler, loads the fleet, and starts them."""

    def __init__(
        self,
        client: Client,
        host_facing: Client,
        settings: Settings,
    ) -> None:
        """`host_facing`: the connection on which hosts register, which has an inbound limit.

        All else goes over `client`.
        """
        self._client = client
        self._host_facing = host_facing
        self._settings = settings
        self._counters = new_counters(utc_now())
        self.instance = new_instance()
        policy = policy_of(settings)
        wake_loop = asyncio.Event()
        suspect_timers: asyncio.Queue[str] = asyncio.Queue()
        self.directory = Directory(policy, wake_loop.set, suspect_timers.put_nowait)
        self.fleet_freezer = FleetFreezer(self.directory)
        limits = limits_of(settings)
        self.bus_clock = BusClock(client)
        self.registry = Registry(
            client,
            self.directory,
            policy,
            self.bus_clock,
            has_identities=limits.fleet is not None,
            requires_signed=limits.requires_signed,
        )
        self.unsigned_hosts = UnsignedHosts(
            self.directory,
            self.bus_clock.now,
            until=limits.unsigned_until,
            requires_signed=limits.requires_signed or limits.fleet is None,
        )
        self.events = LiveEvents(client, policy)
        self.history = HistoryPosition(client, wake_loop.set)
        self.peers = Peers(
            client,
            self.instance,
            self._on_peers_changed,
            policy=fingerprint(settings),
            timeout_seconds=settings.PING_RESPONSE_TIMEOUT_SECONDS,
            clock_offset=lambda: self.bus_clock.offset_seconds,
        )
        self.bus_disks = BusDisks()
        self.presence = Presence(
            settings,
            on_snapshot=self.bus_disks.look,
            on_known=self.directory.know_connected,
            on_change=self._on_presence,
            on_twins=self._on_twins,
            look=self._session_of,
        )
        self.loop = PingLoop(
            client,
            self.directory,
            Cluster(self.peers, self.history, self.bus_clock),
            wake_loop,
            limits=limits,
            on_recorded=self._on_recorded,
            on_consumer_lost=self._restore_layout,
        )
        self.watcher = FleetWatcher(
            client, self.directory, self.loop.active.__contains__, self.peers.saw_outcome
        )
        self.timer_deferral = TimerDeferral(
            client, self.directory, self.peers, self.loop, self.bus_clock
        )
        self.timer_reconciler = TimerReconciler(client, self.directory, suspect_timers)
        self.bucket_guard = BucketGuard(
            client, settings, self.directory, self.watcher, self.loop, self._on_reloaded
        )
        self.endpoints = SchedulerEndpoints(
            client,
            self.directory,
            self.registry,
            self.watcher,
            self.loop,
            self.events,
            self.bus_clock,
            self.stats,
        )

        self.maintenance_endpoints = MaintenanceEndpoints(
            client,
            self.directory,
            self.registry,
            self.watcher,
            self.bus_clock,
            maintenance_endpoints.limits_of(settings),
        )
        self.publishing_endpoints = PublishingEndpoints(
            client,
            self.directory,
            self.watcher,
            self.registry.batcher,
            self.bus_clock,
        )

    async def load(self, start: StartTask) -> None:
        """Returns when the directory holds the whole fleet."""
        await when_available(self.bucket_guard.remember)
        await self.bus_clock.measure_first()
        await self.history.read()
        await self.watcher.load(start)
        self.directory.rebuild_schedule()
        self.timer_reconciler.discard_suspects()
        self._on_peers_changed()
        self.fleet_freezer.on_loaded()
        log.info("fleet_loaded", agents=len(self.directory))
        self.unsigned_hosts.log()

    def start(self, start: StartTask) -> None:
        """Starts to ping."""
        start(self.registry.batcher.run())
        start(self.bus_clock.run())
        start(self.history.run())
        start(self.events.run())
        start(self.presence.run())
        start(self.timer_reconciler.run())
        start(self.bucket_guard.run())
        start(self.peers.run())
        start(self.timer_deferral.run())
        start(self.fleet_freezer.run())
        self.loop.start(start)

    def stats(self) -> SchedulerStats:
        """Returns the figures of this scheduler since its start."""
        counters = self._counters
        queue = self.loop.queue
        pinger = self.loop.pinger
        committer = self.loop.committer
        refused_replies = self._client.refused_reply_count + self._host_facing.refused_reply_count
        return SchedulerStats(
            instance=self.instance,
            started_at=counters.started_at,
            verdicts=dict(counters.verdicts),
            in_flight=pinger.in_flight,
            in_flight_limit=self._settings.PING_MAX_CONCURRENT_AGENTS,
            waiting=queue.waiting,
            held_back_seconds=self.loop.held_back_seconds,
            held=queue.held,
            holding_seconds=self.history.holding_seconds,
            held_seconds=self.history.held_seconds,
            differing_policies=self.peers.differing_policies,
            bucket_problem=self.bucket_guard.problem,
            lost_enrolments=self.bucket_guard.lost_enrolments,
            layout_problems=self.bucket_guard.layout_problems,
            layout_unfinished=self.bucket_guard.unfinished,
            commits=committer.commits,
            lost_races=committer.lost_races,
            bad_messages=queue.bad_messages + pinger.bad_messages + self.watcher.bad_values,
            events_dropped=self.events.dropped,
            timers_put_off=self.timer_deferral.deferred,
            ping_seconds=counters.ping.cumulative(),
            late_seconds=counters.late.cumulative(),
            ping_seconds_sum=counters.ping.sum,
            late_seconds_sum=counters.late.sum,
            bus_clock_offset_seconds=self.bus_clock.offset_seconds,
            peer_clock_difference_seconds=self.peers.clock_difference_seconds,
            schedulers=self.peers.count,
            lost_schedulers=self.peers.lost,
            bucket_bytes=self.bucket_guard.bucket_bytes,
            bus_servers=self.bus_disks.servers,
            gateways=self.presence.gateways,
            lost_gateways=self.presence.lost_gateways(utc_now()),
            unsigned_hosts=self.unsigned_hosts.count(),
            unsigned_until=self.unsigned_hosts.until,
            refused_replies=refused_replies,
        )

    async def metric_families(self) -> list[Metric]:
        """Returns what this scheduler shows to Prometheus."""
        is_connected = gauge("bus_connected", "Whether the bus is connected", self.is_connected)
        return [is_connected, *scheduler_families(self.stats())]

    @property
    def is_connected(self) -> bool:
        """Whether the bus is connected."""
        return self._client.is_connected

    async def _on_reloaded(self) -> None:
        """Brings what depends on the bucket into line with another one."""
        self.timer_reconciler.discard_suspects()
        await self.history.read()
        self._on_peers_changed()

    def _on_peers_changed(self) -> None:
        """Watches the states while there are others that write them, and hears those that left."""
        self.watcher.watch_states(not self.peers.alone)
        self.loop.late_answers.look_again()

    def _on_presence(self, agent_id: str, connected: bool) -> None:  # a callback
        """Shows a connection or its end; it takes no part in the policy."""
        tracked = self.directory.get(agent_id)
        if self.directory.set_connected(agent_id, connected) and tracked is not None:
            view = agent_view(tracked, self.directory.policy, self.bus_clock.now())
            kind: Literal["connected", "disconnected"] = "disconnected"
            if connected:
                kind = "connected"
            self.events.add_registry_change(kind, agent_id, view)

    def _on_twins(self, agent_id: str, hosts: tuple[str, ...]) -> None:
        """Shows two hosts that are connected under one identity, or that there is one again."""
        tracked = self.directory.get(agent_id)
        if not self.directory.set_two_connections(agent_id, hosts) or tracked is None:
            return
        if hosts:
            log.error(
                "two_connections_of_one_agent",
                agent_id=agent_id,
                hosts=hosts,
                action=f"`gpuping creds revoke {agent_id}`, then enrol the right host again",
            )
        view = agent_view(tracked, self.directory.policy, self.bus_clock.now())
        self.events.add_registry_change("conflict" if hosts else "connected", agent_id, view)

    async def _session_of(self, agent_id: str) -> str | None:
        """Which session of an agent answers a look now; None when none does."""
        try:
            reply = await self._client.request(subjects.ping(agent_id), b"", timeout=LOOK_SECONDS)
            return decode(reply.data, UptimeReport).session_id or None
        except (nats.errors.Error, TimeoutError, BadMessageError):
            return None

    def _on_recorded(self, attempt: PingAttempt, state: AgentState) -> None:
        """Counts and publishes an outcome that this scheduler wrote."""
        self._counters.record(state)
        if duplicate_ids.is_conflicting(state):
            _log_duplicate_id(attempt, state)
        if state.last.outcome == "answered":
            self.directory.answered_unseen(state.agent_id)
        self.events.add_outcome(attempt, state)

    async def stop_floods(self, subjects_of_floods: asyncio.Queue[str]) -> None:
        """Closes the connections of hosts that ask far more often than any host has to."""
        while True:
            subject = await subjects_of_floods.get()
            # An operator may ask for any id, also for one that no agent can have.
            agent_id = subject.rpartition(".")[2]
            self.close_flood(CloseConnections(agent_id=agent_id))

    def close_flood(self, flood: CloseConnections) -> None:
        """Closes the connections of one such host."""
        if flood.agent_id is not None:
            self.presence.close_connections(flood.agent_id, FLOODS)
        if flood.guest is not None:
            self.presence.close_guest(flood.guest, FLOODS)

    async def _restore_layout(self) -> None:
        await layout.ensure_consumer(self._client, self._settings)


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Scheduler]:
    """Runs a scheduler for the length of the block; it knows the fleet and pings when entered."""
    inbox_prefix = subjects.service_inbox("scheduler")
    floods: asyncio.Queue[str] = asyncio.Queue()
    inbound_limit = InboundLimit((subjects.REGISTER_PREFIX,), floods.put_nowait)
    async with (
        connection.connected(settings, "scheduler", inbox_prefix=inbox_prefix) as client,
        connection.connected(
            settings,
            "scheduler-registrations",
            inbox_prefix=inbox_prefix,
            inbound_limit=inbound_limit,
        ) as host_facing,
    ):
        await when_available(lambda: layout.ensure(client, settings))
        scheduler = Scheduler(client, host_facing, settings)
        async with background() as start:
            await scheduler.load(start)
            scheduler.start(start)
            start(scheduler.stop_floods(floods))
            maintenance = scheduler.maintenance_endpoints
            publishing = scheduler.publishing_endpoints
            consumers = ConsumerEndpoints(client)
            enrolments = EnrolmentEndpoints(
                client, scheduler.close_flood, scheduler.bus_clock.now_on_server
            )
            changes = [
                *maintenance.changes(),
                *publishing.changes(),
                *consumers.all(),
                *enrolments.all(),
            ]
            looks = [*maintenance.looks(), *publishing.looks()]
            async with scheduler.endpoints.serving(changes, looks, host_facing):
                yield scheduler


def _log_duplicate_id(attempt: PingAttempt, state: AgentState) -> None:
    """Logs two agents under one id, once for each conflict."""
    if duplicate_ids.is_conflicting(attempt.base_state):
        return
    log.error(
        "duplicate_agent_id_detected",
        agent_id=state.agent_id,
        boot_ids=state.conflicting_boot_ids,
        session_ids=state.conflicting_sessions,
        gpus=state.conflicting_gpus,
        action="give one of them another id, or stop it",
    )
