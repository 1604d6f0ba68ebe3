"""Notices that the bucket is gone, was emptied, or is not the one that the fleet was loaded from.

A scheduler knows the fleet from memory and would go on as if nothing had happened. It must not:
what it knows is no longer in the bucket, and a new bucket may know less. It stops pinging, says so,
and reads the new bucket as at its start. Enrolments that are not in it are named in the log and
counted. Agents that register again continue their standing and numbering from the history.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from bus.contract import subjects
from bus.errors import BusError
from bus.settings import Settings
from bus.transport import jetstream_api, layout
from bus.transport.connection import Client
from bus.transport.jetstream_api import JetStreamApiError, JsonObject
from scheduler.fleet.directory import Directory
from scheduler.fleet.fleet_watcher import FleetWatcher
from scheduler.ping.loop import PingLoop

log = structlog.get_logger("scheduler.ping.bucket_guard")

LOOK_SECONDS = 1.0
INSPECT_EVERY = 30  # looks
ANSWER_SECONDS = 2.0
NAMED_AGENTS = 20  # in one line of the log
GONE = "the bucket does not exist: no agent is pinged; a service that starts makes a new one"
RELOADING = "the bucket is another one, or was emptied: the fleet is being loaded from it"


class BucketGuard:
    """`problem` says why nobody is pinged; None while everything is as it should be.

    `lost_enrolments` counts the agents that were registered and are not in the bucket any more.
    `layout_problems` are what `layout.inspect` finds, `unfinished` a migration or restore that goes
    on or was interrupted. `bucket_bytes` is the size of the bucket's stream. `on_reloaded` is
    called after the fleet was loaded anew.
    """

    def __init__(
        self,
        client: Client,
        settings: Settings,
        directory: Directory,
        watcher: FleetWatcher,
        loop: PingLoop,
        on_reloaded: Callable[[], Awaitable[None]],
    ) -> None:
        self._client = client
        self._settings = settings
        self._directory = directory
        self._watcher = watcher
        self._loop = loop
        self._on_reloaded = on_reloaded
        self._created: str | None = None
        self.problem: str | None = None
        self.lost_enrolments = 0
        self.bucket_bytes = 0
        self.layout_problems: tuple[str, ...] = ()
        self.unfinished: str | None = None

    async def remember(self) -> None:
        """Remembers the bucket that the fleet is about to be loaded from. Raises BusError."""
        information = await self._information()
        self._created = information["created"]
        self._directory.restored_through = _restored_through(information)

    async def run(self) -> None:
        """Looks every LOOK_SECONDS, until cancelled."""
        looks = 0
        while True:
            try:
                await self._look()
                if looks % INSPECT_EVERY == 0:
                    problems = await layout.inspect(self._client, self._settings)
                    self.layout_problems = tuple(problem.text for problem in problems)
                looks += 1
            except BusError as error:
                log.debug("bucket_look_failed", detail=str(error))
            await asyncio.sleep(LOOK_SECONDS)

    async def _look(self) -> None:
        try:
            information = await self._information()
        except JetStreamApiError as error:
            if error.is_not_found:
                self._stop(GONE)
            raise
        self.bucket_bytes = information["state"]["bytes"]
        self.unfinished = layout.unfinished(information["config"])
        # Each registered agent has at least its entry.
        is_emptied = information["state"]["messages"] < len(self._directory)
        if information["created"] != self._created or is_emptied:
            self._stop(RELOADING)
            self._directory.restored_through = _restored_through(information)
            await self._reload(information["created"])

    async def _information(self) -> JsonObject:
        verb = f"STREAM.INFO.{subjects.BUCKET_STREAM}"
        return await jetstream_api.call(self._client, verb, timeout=ANSWER_SECONDS)

    def _stop(self, problem: str) -> None:
        if self.problem != problem:
            log.critical("bucket_lost", detail=problem, agents=len(self._directory))
        self.problem = problem
        self._loop.is_paused = True

    async def _reload(self, created: str) -> None:
        """Loads the fleet as at the start. What was in flight is dropped."""
        await layout.ensure_consumer(self._client, self._settings)
        self._loop.abandon()
        before = set(self._directory.registered_ids())
        self._directory.clear()
        await self._watcher.load_again()
        self._directory.rebuild_schedule()
        await self._on_reloaded()
        self._created = created
        lost = sorted(before.difference(self._directory.registered_ids()))
        self.lost_enrolments += len(lost)
        if lost:
            log.critical(
                "enrolments_lost",
                agents=len(lost),
                agent_ids=lost[:NAMED_AGENTS],
                action="let these agents register again; they continue where they were",
            )
        log.warning("fleet_loaded_again", agents=len(self._directory))
        self.problem = None
        self._loop.is_paused = False
        self._loop.wake()


def _restored_through(information: JsonObject) -> int:
    """The last sequence of the bucket that came from a backup; 0 where none did."""
    metadata = information["config"].get("metadata") or {}
    text = metadata.get(layout.RESTORED_THROUGH, "0")
    if not text.isdecimal():
        return 0
    return int(text)
