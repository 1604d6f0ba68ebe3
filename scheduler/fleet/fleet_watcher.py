"""Keeps the directory up to date with the entries, states and late answers in the bucket."""

from collections.abc import Callable

import structlog
from msgspec.structs import replace

from bus.background import StartTask
from bus.contract import subjects
from bus.contract.messages import AgentEntry, AgentState, LateAnswer, decode
from bus.errors import BadMessageError, UnavailableError
from bus.transport import bucket, jetstream_api
from bus.transport.availability import when_available
from bus.transport.connection import Client
from bus.transport.consumers.kv_watcher import KeyWatcher
from bus.transport.jetstream_api import JetStreamApiError
from scheduler.fleet.directory import Directory

log = structlog.get_logger("scheduler.fleet.fleet_watcher")

CATCH_UP_SECONDS = 5.0


class FleetWatcher:
    """Applies every revision of `agent.<id>`, `state.<id>` and `late.<id>` to the directory.

    `is_active` tells whether this scheduler has an attempt for the agent. The states of such an
    agent are not applied; if another scheduler writes one, the attempt's compare-and-set fails, and
    it is read then. `on_outcome` is called with the ping_id of each outcome of another scheduler.
    """

    def __init__(
        self,
        client: Client,
        directory: Directory,
        is_active: Callable[[str], bool],
        on_outcome: Callable[[str], None],
    ) -> None:
        self._client = client
        self._directory = directory
        self._is_active = is_active
        self._on_outcome = on_outcome
        self._entries = KeyWatcher(
            client,
            subjects.BUCKET_STREAM,
            subjects.agent_key("*"),
            self._on_entry,
        )
        self._states = KeyWatcher(
            client,
            subjects.BUCKET_STREAM,
            subjects.state_key("*"),
            self._on_state,
        )
        self._late = KeyWatcher(
            client,
            subjects.BUCKET_STREAM,
            subjects.late_key("*"),
            self._on_late,
        )
        self.bad_values = 0
        self._bucket_created: str | None = None

    async def load(self, start: StartTask) -> None:
        """Starts to watch; returns when the directory holds what the bucket held at the start."""
        self._bucket_created = await when_available(self._read_bucket_created)
        start(self._entries.run())
        start(self._states.run())
        await self._entries.loaded.wait()
        await self._states.loaded.wait()
        # The directory takes them for agents that it knows.
        start(self._late.run())
        await self._late.loaded.wait()

    async def bucket_trouble(self) -> str | None:
        """Why the bucket is not the one that was loaded; None if it is.

        Raises UnavailableError when the bus is away.
        """
        try:
            created = await self._read_bucket_created()
        except JetStreamApiError as error:
            return f"the bucket {subjects.BUCKET} cannot be used: {error.description}"
        if created != self._bucket_created:
            return (
                f"the bucket {subjects.BUCKET} was made anew at {created}, "
                "without what this scheduler had loaded: it is being loaded"
            )
        return None

    async def _read_bucket_created(self) -> str:
        """When the bucket was made, which tells two buckets of one name apart."""
        info = await jetstream_api.call(self._client, f"STREAM.INFO.{subjects.BUCKET_STREAM}")
        created: str = info["created"]
        return created

    async def load_again(self) -> None:
        """Reads everything anew; returns when the directory holds what the bucket holds now.

        Raises BusError when the bucket is gone.
        """
        self._bucket_created = await self._read_bucket_created()
        self._entries.restart()
        self._states.restart()
        await self._entries.loaded.wait()
        await self._states.loaded.wait()
        self._late.restart()
        await self._late.loaded.wait()

    def watch_states(self, wanted: bool) -> None:
        """Watches the states, or stops to: a scheduler that is alone writes all states itself."""
        if wanted:
            self._states.resume()
        else:
            self._states.pause()

    async def catch_up(self) -> None:
        """Returns when every registration and removal acknowledged so far has been applied.

        Raises UnavailableError when the bus is away, or when that takes too long.
        """
        if not self._client.is_connected:
            raise UnavailableError("the bus is not connected")
        newest = await bucket.last_sequence(self._client, subjects.agent_key("*"))
        try:
            await self._entries.reached(newest, CATCH_UP_SECONDS)
        except TimeoutError:
            raise UnavailableError(
                "the scheduler is still catching up with the registry: try again"
            ) from None

    def _on_entry(
        self,
        subject: str,
        data: bytes,
        sequence: int,
        time_ns: int,
        deleted: bool,
    ) -> None:
        if deleted:
            return
        try:
            agent_id = subjects.last_token(subject)
            entry = decode(data, AgentEntry)
        except BadMessageError as error:
            self._reject(subject, error)
            return
        self._directory.apply_entry(agent_id, entry, sequence, time_ns)

    def _on_state(
        self,
        subject: str,
        data: bytes,
        sequence: int,
        time_ns: int,
        deleted: bool,
    ) -> None:
        if deleted:
            return
        try:
            agent_id = subjects.last_token(subject)
            if self._is_active(agent_id) or self._is_known(agent_id, sequence):
                return
            state = _without_message(decode(data, AgentState))
        except BadMessageError as error:
            self._reject(subject, error)
            return
        self._directory.apply_state(agent_id, state, sequence, time_ns)
        self._on_outcome(state.last.ping_id)

    def _on_late(
        self,
        subject: str,
        data: bytes,
        _sequence: int,
        _time_ns: int,
        deleted: bool,
    ) -> None:
        if deleted:
            return
        try:
            agent_id = subjects.last_token(subject)
            answer = decode(data, LateAnswer)
        except BadMessageError as error:
            self._reject(subject, error)
            return
        self._directory.apply_late_answer(agent_id, answer.ping_id)

    def _is_known(self, agent_id: str, sequence: int) -> bool:
        """Returns whether this revision was applied before: this scheduler wrote it itself."""
        tracked = self._directory.get(agent_id)
        return tracked is not None and sequence <= tracked.state_revision

    def _reject(self, subject: str, error: BadMessageError) -> None:
        self.bad_values += 1
        log.error(
            "bucket_value_rejected",
            subject=subject,
            detail=str(error),
            action="the value is left as it is; correct it by hand",
        )


def _without_message(state: AgentState) -> AgentState:
    """Returns the state with a copy of its report.

    The decoded report is a view that would keep the whole message in memory.
    """
    last = replace(state.last, report=state.last.report.copy())
    return replace(state, last=last)
