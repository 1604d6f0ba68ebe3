"""How much JetStream holds on each nats-server, how much it may hold, and whether it syncs writes.

The servers' own system account tells it. A server without a limit in its configuration takes three
quarters of the disk's free space as it was at its start. When that is used up it refuses outcomes.
"""

import asyncio

import msgspec
import structlog
from msgspec import Struct
from nats.aio.msg import Msg

from bus.contract import subjects
from bus.contract.questions import BusServer
from bus.transport.connection import Client

log = structlog.get_logger("scheduler.cluster.bus_disks")

ANSWERS_SECONDS = 1.0  # how long servers are waited for; each answers for itself


class _Limits(Struct, frozen=True):
    max_storage: int = 0
    sync_always: bool = False


class _JetStream(Struct, frozen=True):
    storage: int = 0
    config: _Limits = _Limits()


class _Server(Struct, frozen=True):
    name: str


class _Answer(Struct, frozen=True):
    server: _Server
    data: _JetStream = _JetStream()


class BusDisks:
    """`servers` is what the servers said last; empty before they were asked."""

    def __init__(self) -> None:
        self.servers: tuple[BusServer, ...] = ()

    async def look(self, client: Client) -> None:
        """Asks every server over a connection of the system account.

        System credentials of an earlier version may not ask: then it stays unknown.
        """
        if client.was_denied(subjects.SERVER_JETSTREAM):
            return
        found: dict[str, BusServer] = {}
        everybody = asyncio.Event()
        inbox = client.new_inbox()

        def receive(message: Msg) -> None:
            try:
                answer = msgspec.json.decode(message.data, type=_Answer)
            except msgspec.DecodeError as error:
                log.warning("jetstream_size_decode_failed", detail=str(error))
                return
            limit_bytes = answer.data.config.max_storage
            if limit_bytes > 0:
                name = answer.server.name
                found[name] = BusServer(
                    name=name,
                    stored_bytes=answer.data.storage,
                    limit_bytes=limit_bytes,
                    syncs_always=answer.data.config.sync_always,
                )
            if len(found) >= client.server_count:
                everybody.set()

        async with client.listening(inbox, receive):
            await client.publish(subjects.SERVER_JETSTREAM, b"", reply=inbox)
            try:
                async with asyncio.timeout(ANSWERS_SECONDS):
                    await everybody.wait()
            except TimeoutError:
                log.debug("some_servers_did_not_answer", answered=len(found))
        self.servers = tuple(found[name] for name in sorted(found))
