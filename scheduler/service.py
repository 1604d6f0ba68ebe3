"""One scheduler, put together: any number of them share the work on one bus, without a leader."""

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from msgspec.structs import replace

from bus.background import Start, background
from bus.clock import utc_now
from bus.contract import subjects
from bus.contract.messages import AgentEntry, AgentState, decode
from bus.contract.questions import SchedulerStats
from bus.errors import BadMessageError
from bus.settings import Settings
from bus.transport import connection, layout
from bus.transport.connection import Client
from bus.transport.kv_watcher import KeyWatcher
from bus.transport.pull_consumer import PullConsumer
from scheduler.cluster.peers import Peers
from scheduler.endpoints import Answers
from scheduler.fleet.directory import Directory
from scheduler.fleet.registry import Registry
from scheduler.fleet.timer_reconciler import Mender
from scheduler.ping.attempt import Flight
from scheduler.ping.bus_monitor import Pulse
from scheduler.ping.committer import Committer
from scheduler.ping.live_events import Events
from scheduler.ping.loop import PingLoop
from scheduler.ping.pinger import Pinger, new_ping_ids
from scheduler.ping.timer_deferral import Timekeeper
from scheduler.policy import Policy
from scheduler.stats import counters

log = structlog.get_logger("scheduler")

LARGE_FLEET = 10_000  # agents
LARGE_FLEET_COLLECTIONS = (
    100_000,
    20,
    100,
)  # 12 % of the time went into looking for garbage that is not there


def policy_of(settings: Settings) -> Policy:
    """The fleet's rules, in seconds."""
    return Policy(
        base_seconds=settings.base_interval_seconds,
        max_seconds=settings.max_interval_seconds,
        multiplier=settings.PING_ESCALATION_MULTIPLIER,
        threshold_percent=settings.PING_UPTIME_THRESHOLD,
        recovery_pings=settings.PING_RECOVERY_THRESHOLD_PINGS,
        grace=settings.PING_FIRST_PING_GRACE_PERIOD,
    )


def without_message(state: AgentState) -> AgentState:
    """The state with a copy of its report, which else would keep the whole message in memory."""
    return replace(state, last=replace(state.last, report=state.last.report.copy()))


class Scheduler:
    """The parts of one scheduler and how they are joined: puller -> loop -> pinger -> committer -> loop."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self.client = client
        self.policy = policy_of(settings)
        self.instance = new_ping_ids()()
        self._counters = counters(utc_now())
        self._limit = settings.PING_MAX_CONCURRENT_AGENTS
        self._bad_values = 0
        self.events = Events(client, self.policy)

        self.directory = Directory(self.policy)
        self.registry = Registry(client, self.directory, self.policy)
        self.entries = KeyWatcher(
            client, subjects.BUCKET_STREAM, subjects.agent_key("*"), self._entry_changed
        )
        self.states = KeyWatcher(
            client, subjects.BUCKET_STREAM, subjects.state_key("*"), self._state_changed
        )
        self.pulse = Pulse(client)
        self.peers = Peers(client, self.instance)
        self.peers.changed = self._company_changed
        self.loop = PingLoop(client, self.directory, self.peers, self._limit, self._recorded)
        self.loop.committer = Committer(
            client, self.directory, self.policy, self.loop.settled, self.loop.fly_again
        )
        self.loop.pinger = Pinger(
            client, self.pulse, settings.PING_RESPONSE_TIMEOUT_SECONDS, self.loop.landed
        )
        self.puller = PullConsumer(
            client,
            subjects.BUCKET_STREAM,
            subjects.DUE_CONSUMER,
            self.loop.take,
            self.loop.queue.room,
            self._consumer_lost,
        )
        self.loop.more = self.puller.room_freed
        self.timekeeper = Timekeeper(client, self.directory, self.loop)
        self.mender = Mender(client, self.directory)
        self._settings = settings

    async def load(self, start: Start) -> None:
        """Knows the fleet when this returns."""
        start(self.entries.run())
        start(self.states.run())
        await self.entries.loaded.wait()
        await self.states.loaded.wait()
        self.directory.settle()
        self._company_changed()
        if len(self.directory) >= LARGE_FLEET:
            gc.collect()
            gc.freeze()  # a full collection of a million agents would stop the loop for seconds, and find nothing
            gc.set_threshold(*LARGE_FLEET_COLLECTIONS)
        log.info("scheduler_loaded", agents=len(self.directory))

    def start(self, start: Start) -> None:
        """Pings from now on."""
        self.client.on_reconnect(self.puller.pull_again)
        self.directory.crossed = (
            self.mender.crossed
        )  # while loading, states may come before their entries
        for part in (
            self.registry.gatherer,
            self.events,
            self.mender,
            self.peers,
            self.pulse,
            self.loop.committer,
            self.loop.pinger,
            self.puller,
            self.timekeeper,
            self.loop,
        ):
            start(part.run())

    def stats(self) -> SchedulerStats:
        """This scheduler in numbers, since its start."""
        counted = self._counters
        return SchedulerStats(
            instance=self.instance,
            started_at=counted.started_at,
            verdicts=dict(counted.verdicts),
            in_flight=self.loop.pinger.in_flight,
            in_flight_limit=self._limit,
            waiting=self.loop.queue.waiting,
            held_back_seconds=self.loop.held_back_seconds,
            commits=self.loop.committer.commits,
            lost_races=self.loop.committer.lost_races,
            bad_messages=self.loop.queue.bad_messages
            + self.loop.pinger.bad_messages
            + self._bad_values,
            events_dropped=self.events.dropped,
            timers_put_off=self.timekeeper.put_off,
            ping_seconds=counted.ping.cumulative(),
            late_seconds=counted.late.cumulative(),
            ping_seconds_sum=counted.ping.sum,
            late_seconds_sum=counted.late.sum,
        )

    def _company_changed(self) -> None:
        """The states that others write must be followed; a scheduler that is alone writes them all itself."""
        if self.peers.alone:
            self.states.pause()
        else:
            self.states.resume()

    def _recorded(self, flight: Flight, state: AgentState) -> None:
        """An outcome of ours stands in the bucket."""
        self._counters.record(state)
        if state.conflicting_boot_ids and not (flight.base and flight.base.conflicting_boot_ids):
            log.error(
                "two_hosts_under_one_id",
                agent_id=state.agent_id,
                boot_ids=state.conflicting_boot_ids,
            )
        self.events.outcome(flight, state)

    def _entry_changed(
        self, subject: str, data: bytes, sequence: int, _time_ns: int, deleted: bool
    ) -> None:
        try:
            agent_id = subjects.last_token(subject)
            if not deleted:
                self.directory.apply_entry(agent_id, decode(data, AgentEntry), sequence)
        except BadMessageError as error:
            self._bad_value(subject, error)

    def _state_changed(
        self, subject: str, data: bytes, sequence: int, time_ns: int, deleted: bool
    ) -> None:
        try:
            agent_id = subjects.last_token(subject)
            tracked = self.directory.get(agent_id)
            # our own commits are known; what interferes with a flight of ours, its compare-and-set will find out
            if (
                deleted
                or agent_id in self.loop.active
                or (tracked and sequence <= tracked.state_revision)
            ):
                return
            self.directory.apply_state(
                agent_id, without_message(decode(data, AgentState)), sequence, time_ns
            )
        except BadMessageError as error:
            self._bad_value(subject, error)

    def _bad_value(self, subject: str, error: BadMessageError) -> None:
        self._bad_values += 1
        log.error(
            "bad_value_in_bucket",
            subject=subject,
            detail=str(error),
            action="left alone; put it right by hand",
        )

    async def _consumer_lost(self) -> None:
        await layout.ensure(self.client, self._settings)


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Scheduler]:
    """A scheduler for the length of a block: knows the fleet and pings when entered."""
    async with connection.connected(settings, "scheduler") as client:
        await layout.ensure(client, settings)
        scheduler = Scheduler(client, settings)
        async with background() as start:
            await scheduler.load(start)
            scheduler.start(start)
            service = await Answers(scheduler).serve()
            try:
                yield scheduler
            finally:
                await service.stop()
