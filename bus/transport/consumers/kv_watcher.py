"""Watches keys of the bucket: first the last revision of each, then every change.

The consumer is made anew whenever it is lost, behind the last sequence that was applied: the bucket
keeps the last revision of each key, so nothing that still counts can be missed.
"""

import asyncio
from collections.abc import Callable

import structlog
from nats.aio.msg import Msg

from bus.errors import BusError
from bus.transport.connection import Client
from bus.transport.consumers.ordered_consumer import OrderedConsumer
from bus.transport.consumers.pull_consumer import Delivery
from bus.transport.jetstream_api import JsonObject

log = structlog.get_logger("bus.transport.consumers.kv_watcher")

MAX_PENDING = 2000  # messages asked for and not yet applied
INACTIVE_SECONDS = 60
RETRY_SECONDS = 1.0
_CONSUMER = {
    "ack_policy": "none",
    "mem_storage": True,
    "num_replicas": 1,
    "inactive_threshold": INACTIVE_SECONDS * 1_000_000_000,
}


class KeyWatcher:
    """Calls `apply` for each revision under `subject_filter`, in order.

    The arguments of `apply` are the subject, the value, the stream sequence, when it was stored (ns
    since 1970), and whether the key was deleted.
    """

    def __init__(
        self,
        client: Client,
        stream: str,
        subject_filter: str,
        apply: Callable[[str, bytes, int, int, bool], None],
    ) -> None:
        self._filter = subject_filter
        self._apply = apply
        self._consumer = OrderedConsumer(client, stream, self._deliver, lambda: MAX_PENDING)
        self._sequence = 0  # the last one applied
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []
        self._wanted = asyncio.Event()
        self._wanted.set()
        self.loaded = asyncio.Event()

    async def run(self) -> None:
        """Watches until cancelled. Sets `loaded` when all that existed at the start is applied."""
        while True:
            await self._wanted.wait()
            try:
                pending = await self._consumer.create(
                    _CONSUMER | {"filter_subject": self._filter}, self._start()
                )
            except BusError as error:
                log.warning("key_watcher_failed", filter=self._filter, detail=str(error))
                await asyncio.sleep(RETRY_SECONDS)
                continue
            if pending == 0:
                self.loaded.set()
            await self._consumer.run()

    async def reached(self, sequence: int, timeout: float) -> None:
        """Returns when the stream sequence `sequence` has been applied. Raises TimeoutError."""
        if self._sequence >= sequence:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((sequence, waiter))
        async with asyncio.timeout(timeout):
            await waiter

    def restart(self) -> None:
        """Watches from the beginning again, also after `pause`: the stream is another one.

        `loaded` is set again when all that it holds now has been applied.
        """
        self._sequence = 0
        self.loaded.clear()
        self._wanted.set()
        self._consumer.stop()

    def pause(self) -> None:
        """Stops watching. `resume` goes on with the last revision of what changes meanwhile."""
        self._wanted.clear()
        self._consumer.stop()

    def resume(self) -> None:
        """Watches again after `pause`."""
        self._wanted.set()

    def _start(self) -> JsonObject:
        if self._sequence == 0:
            return {"deliver_policy": "last_per_subject"}
        return {"deliver_policy": "by_start_sequence", "opt_start_seq": self._sequence + 1}

    def _deliver(self, message: Msg, where: Delivery) -> None:
        deleted = bool(message.headers and message.headers.get("KV-Operation"))
        self._apply(message.subject, message.data, where.sequence, where.time_ns, deleted)
        self._sequence = where.sequence
        if where.pending == 0:
            self.loaded.set()
        if self._waiters:
            self._release_waiters()

    def _release_waiters(self) -> None:
        waiting = []
        for sequence, waiter in self._waiters:
            if sequence <= self._sequence and not waiter.done():
                waiter.set_result(None)
            if not waiter.done():
                waiting.append((sequence, waiter))
        self._waiters = waiting
