"""The bucket `gpuping_alerts` as every alerts process knows it, and the writes to it.

Any number of processes work on one bucket without a leader. Each write says which revision of a key
it replaces; of several processes that want to make the same change, one is first, and the others
see that it is done.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Generic, NamedTuple, TypeVar

import structlog
from msgspec import Struct

from bus.contract import subjects
from bus.contract.alerts import AlertChange, Conditions, Notification, Position, Silence
from bus.contract.messages import decode, encode
from bus.errors import BadMessageError, StaleError
from bus.transport import batch, bucket
from bus.transport.batch import Write
from bus.transport.connection import Client
from bus.transport.consumers.kv_watcher import KeyWatcher

log = structlog.get_logger("gpuping.alerts.board")

SEEN_SECONDS = 10.0  # how long a write of our own takes to come back, at the longest
DELETED_SECONDS = 86_400  # how long the mark of a deleted key stays
_DELETED = {"KV-Operation": "DEL", "Nats-TTL": f"{DELETED_SECONDS}s"}

S = TypeVar("S", bound=Struct)


class Kept(NamedTuple, Generic[S]):
    """A value of the bucket and its revision."""

    value: S
    revision: int


class Table(Generic[S]):
    """The keys of one kind, by what follows the kind's prefix."""

    def __init__(self, prefix: str, kind: type[S]) -> None:
        self._prefix = prefix
        self._kind = kind
        self._kept: dict[str, Kept[S]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: str) -> Kept[S] | None:
        """The value of a full subject; None where there is none."""
        return self._kept.get(key)

    def values(self) -> Iterable[S]:
        """Every value."""
        return (kept.value for kept in self._kept.values())

    def kept(self, fits: Callable[[S], bool] = lambda _: True) -> list[Kept[S]]:
        """The values that fit, with their revisions, the oldest revision first."""
        found = [kept for kept in self._kept.values() if fits(kept.value)]
        found.sort(key=lambda kept: kept.revision)
        return found

    def apply(
        self,
        subject: str,
        data: bytes,
        revision: int,
        *,
        is_deleted: bool,
    ) -> bool:
        """Takes over a revision. Returns whether the subject is of this kind."""
        if not subject.startswith(self._prefix):
            return False
        if is_deleted or not data:
            self._kept.pop(subject, None)
            return True
        try:
            self._kept[subject] = Kept(decode(data, self._kind), revision)
        except BadMessageError as error:
            self._kept.pop(subject, None)
            log.warning("alerts_value_decode_failed", key=subject, detail=str(error))
        return True


class Board:
    """Follows the bucket. `on_change` is called after each revision."""

    def __init__(self, client: Client, on_change: Callable[[], None]) -> None:
        self._client = client
        self._on_change = on_change
        self.conditions = Table(f"{subjects.ALERTS_KEYS}condition.", Conditions)
        self.changes = Table(f"{subjects.ALERTS_KEYS}change.", AlertChange)
        self.notifications = Table(f"{subjects.ALERTS_KEYS}notification.", Notification)
        self.silences = Table(f"{subjects.ALERTS_KEYS}silence.", Silence)
        self._positions = Table(subjects.ALERTS_POSITION, Position)
        self._tables: tuple[
            Table[Conditions]
            | Table[AlertChange]
            | Table[Notification]
            | Table[Silence]
            | Table[Position],
            ...,
        ] = (
            self.conditions,
            self.changes,
            self.notifications,
            self.silences,
            self._positions,
        )
        self.watcher = KeyWatcher(
            client, subjects.ALERTS_STREAM, f"{subjects.ALERTS_KEYS}>", self._apply
        )

    @property
    def position(self) -> Position | None:
        """How far the history was looked through; None before the first time."""
        kept = self._positions.get(subjects.ALERTS_POSITION)
        if kept is None:
            return None
        return kept.value

    async def write(self, writes: list[Write]) -> bool:
        """Writes all or nothing, and returns when the board shows it.

        False where another process was first: the board then shows what it did. Raises
        UnavailableError where the bucket does not answer; it may have been written then or not.
        """
        try:
            first = await batch.commit(self._client, writes)
        except StaleError:
            await self.catch_up(write.subject for write in writes)
            return False
        await self._reached(first + len(writes) - 1)
        return True

    async def catch_up(self, keys: Iterable[str]) -> None:
        """Returns when the board shows the last revision of these keys. Raises BusError."""
        for key in keys:
            newest = await bucket.last_sequence(self._client, key, subjects.ALERTS_STREAM)
            await self._reached(newest)

    async def _reached(self, revision: int) -> None:
        try:
            await self.watcher.reached(revision, SEEN_SECONDS)
        except TimeoutError:
            log.warning("alerts_board_behind", revision=revision)

    def _apply(
        self,
        subject: str,
        data: bytes,
        revision: int,
        _time_ns: int,
        is_deleted: bool,  # the watcher's callback
    ) -> None:
        for table in self._tables:
            if table.apply(subject, data, revision, is_deleted=is_deleted):
                break
        self._on_change()


def put(
    key: str,
    value: Struct,
    before: Kept[S] | None,
    *,
    keep_seconds: int | None = None,
) -> Write:
    """A write that replaces exactly the revision that was seen, or makes a new key."""
    headers = {}
    if keep_seconds is not None:
        headers["Nats-TTL"] = f"{keep_seconds}s"
    revision = 0
    if before is not None:
        revision = before.revision
    return Write(key, encode(value), headers, revision)


def delete(key: str, before: Kept[S]) -> Write:
    """A write that deletes exactly the revision that was seen."""
    return Write(key, b"", _DELETED, before.revision)


async def sleep_unless(event: asyncio.Event, seconds: float) -> None:
    """Waits for the event, but no longer than so many seconds; clears it."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
    finally:
        event.clear()
