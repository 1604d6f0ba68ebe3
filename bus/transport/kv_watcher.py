"""Following keys of the bucket: first the last revision of each, then every change, for ever.

The consumer is made anew whenever it is lost, from the position reached: the bucket keeps the last revision
of each key, so nothing that still counts can be missed.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import structlog
from nats.aio.msg import Msg

from bus.errors import BusError
from bus.transport import jetstream_api
from bus.transport.connection import Client
from bus.transport.pull_consumer import Puller, position

log = structlog.get_logger("bus.transport.kv_watcher")

WINDOW = 2000
INACTIVE_SECONDS = 60


class Follower:
    """Calls `apply(subject, data, sequence, time_ns, deleted)` for each revision under `subject_filter`, in order."""

    def __init__(
        self,
        client: Client,
        stream: str,
        subject_filter: str,
        apply: Callable[[str, bytes, int, int, bool], None],
    ) -> None:
        self._client, self._stream, self._filter, self._apply = (
            client,
            stream,
            subject_filter,
            apply,
        )
        self._position = 0
        self._deliveries = 0
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []
        self._lost = asyncio.Event()
        self._wanted = asyncio.Event()
        self._wanted.set()
        self.loaded = asyncio.Event()

    async def run(self) -> None:
        """Follows until cancelled; `loaded` is set when everything there was at the start has been applied."""
        self._client.on_reconnect(
            self._on_lost
        )  # what was on the wire is lost, and not redelivered
        while True:
            await self._wanted.wait()
            self._lost.clear()
            try:
                consumer, pending = await self._make_consumer()
            except BusError as error:
                log.warning("follow_waits", filter=self._filter, detail=str(error))
                await asyncio.sleep(1.0)
                continue
            if pending == 0:
                self.loaded.set()
            self._deliveries = 0
            await self._pull(consumer)

    async def reached(self, sequence: int, timeout: float) -> None:
        """Returns when the revision `sequence` of the stream has been applied. Raises TimeoutError."""
        if self._position >= sequence:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((sequence, waiter))
        async with asyncio.timeout(timeout):
            await waiter

    def pause(self) -> None:
        """Stops following for now; `resume` goes on from here, with the last revision of what changed meanwhile."""
        self._wanted.clear()
        self._lost.set()

    def resume(self) -> None:
        """Follows again."""
        self._wanted.set()

    async def _pull(self, consumer: str) -> None:
        puller = Puller(
            self._client, self._stream, consumer, self._deliver, lambda: WINDOW, self._on_lost
        )
        task = asyncio.create_task(puller.run())
        lost = asyncio.create_task(self._lost.wait())
        try:
            await asyncio.wait({task, lost}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
        finally:
            task.cancel()
            lost.cancel()

    async def _on_lost(self) -> None:
        self._lost.set()

    async def _make_consumer(self) -> tuple[str, int]:
        config: dict[str, Any] = {
            "filter_subject": self._filter,
            "ack_policy": "none",
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": INACTIVE_SECONDS * 1_000_000_000,
        }
        if self._position:
            config |= {"deliver_policy": "by_start_sequence", "opt_start_seq": self._position + 1}
        else:
            config |= {"deliver_policy": "last_per_subject"}
        answer = await jetstream_api.call(
            self._client,
            f"CONSUMER.CREATE.{self._stream}",
            {"stream_name": self._stream, "config": config},
            30.0,
        )
        return answer["name"], answer["num_pending"]

    def _deliver(self, message: Msg) -> None:
        sequence, delivery, time_ns, pending = position(message)
        if delivery != self._deliveries + 1:  # something fell out on the way
            self._lost.set()
            return
        self._deliveries = delivery
        deleted = bool(message.headers and message.headers.get("KV-Operation"))
        self._apply(message.subject, message.data, sequence, time_ns, deleted)
        self._position = sequence
        if pending == 0:
            self.loaded.set()
        if self._waiters:
            self._release()

    def _release(self) -> None:
        for sequence, waiter in self._waiters:
            if sequence <= self._position and not waiter.done():
                waiter.set_result(None)
        self._waiters = [pair for pair in self._waiters if not pair[1].done()]
