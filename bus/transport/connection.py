"""The connection to the bus: it comes back for ever, notices a frozen server, and keeps the log quiet.

A frozen server leaves a TCP connection "connected"; two unanswered pings 5 s apart find it out
within 15 s.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import nats.errors
import structlog
from nats.aio.client import Client as NatsClient
from nats.aio.client import Server
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.micro.request import Request
from nats.micro.service import Endpoint, Service

from bus.contract import subjects
from bus.settings import Settings
from bus.transport import cli_contexts

log = structlog.get_logger("bus")

PING_INTERVAL_SECONDS = 5
MAX_OUTSTANDING_PINGS = 2
FIRST_RETRY_SECONDS = 0.25
SLOWEST_RETRY_SECONDS = 8.0
PENDING_BYTES = 8 * 1024 * 1024

Hook = Callable[[], Awaitable[None]]


def _next_server(servers: list[Server], _info: dict[str, Any]) -> tuple[Server, float]:
    """The server tried least, after a jittered back-off: a fleet must not come back all at once."""
    server = min(servers, key=lambda candidate: candidate.reconnects)
    ceiling = min(SLOWEST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2.0 ** min(server.reconnects, 10))
    return server, random.uniform(ceiling / 2, ceiling)  # noqa: S311  # spreads load, keeps no secret


class Client(NatsClient):
    """A connection that narrates each change once: nats-py reports every failed attempt, for ever."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._label = name
        self._last_error = ""
        self._closing = False
        self._hooks: list[Hook] = []
        self.denied: list[str] = []  # the first few refusals of the server, in its words
        self._listeners: dict[int, Callable[[Msg], None]] = {}  # by subscription

    @property
    def address(self) -> str:
        """The server that it is connected to; empty while it is not."""
        return self.connected_url.geturl() if self.connected_url else ""

    def on_reconnect(self, hook: Hook) -> None:
        """Awaits `hook` after each reconnection: a consumer that is being read stalls unless it is renewed there."""
        self._hooks.append(hook)

    async def send_frames(self, frames: list[bytes]) -> None:
        """Sends ready-made protocol frames in order, all in one piece.

        nats-py's `publish` costs some 15 us with headers, most of it for checks and flushes that a
        batch of a thousand messages owes once (docs/benchmarks.md).
        """
        if not frames:
            return
        if not self.is_connected:
            raise nats.errors.OutboundBufferLimitError
        await self._send_command(b"".join(frames))
        await self._flush_pending()

    @asynccontextmanager
    async def listening(self, subject: str, hear: Callable[[Msg], None]) -> AsyncIterator[None]:
        """Calls `hear` with each message while it is read from the wire, for the length of a block.

        nats-py's own way, a queue and a task by subscription, costs 5 us more a message. `hear`
        must be quick; what it raises is logged. For an inbox of one's own, where nothing can come
        before it is asked for.
        """
        subscription = await self.subscribe(subject)
        self._listeners[subscription._id] = hear  # noqa: SLF001  # nats-py has no public name for it
        try:
            yield
        finally:
            del self._listeners[subscription._id]  # noqa: SLF001
            if not self.is_closed:
                await subscription.unsubscribe()

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes
    ) -> None:
        """A name that is not UTF-8 must not raise: it would end the reading, and again after each reconnection."""
        subject, reply = _legible(subject), _legible(reply)
        hear = self._listeners.get(sid)
        if hear is None:
            await super()._process_msg(sid, subject, reply, data, headers)
            return
        self.stats["in_msgs"] += 1
        self.stats["in_bytes"] += len(data)
        header = await self._process_headers(headers) if headers else None
        message = self._build_message(sid, subject, reply, data, header)
        try:
            hear(message)
        except Exception:  # what it raises would end the reading of the whole connection
            log.exception("message_not_heard", subject=message.subject)

    async def _process_headers(self, headers: bytes) -> dict[str, str] | None:
        """None where they cannot be read: any publisher may write what it likes."""
        try:
            return await super()._process_headers(headers)
        except (ValueError, IndexError) as error:
            log.warning("headers_not_read", connection=self._label, detail=f"{error}")
            return None

    async def flush(self, timeout: float = 10) -> None:
        """A round trip behind everything sent so far.

        nats-py 2.16 writes its PING past the commands that still wait for its flusher: a
        subscription might not stand yet when its `flush` returns. Here they go first.
        """
        try:
            async with asyncio.timeout(timeout):  # a server that is frozen takes nothing more
                await self._flush_pending(force_flush=True)
        except TimeoutError:
            raise nats.errors.FlushTimeoutError from None
        await super().flush(timeout)  # type: ignore[arg-type]

    async def settle(self) -> None:
        """A flush that need not succeed: whoever reconnects subscribes to what it wants by then."""
        with contextlib.suppress(nats.errors.Error, TimeoutError, OSError):
            await self.flush()

    async def drain_callbacks(self, subscriptions: list[Subscription]) -> None:
        """Ends subscriptions with callbacks; what the server had sent on them before is heard yet."""
        for subscription in subscriptions:
            await self._send_unsubscribe(subscription._id)  # noqa: SLF001
        await self.settle()
        for subscription in subscriptions:
            await subscription._pending_queue.join()  # noqa: SLF001
            await subscription.unsubscribe()

    async def _process_pong(self) -> None:
        """nats-py 2.16 dies of a PONG whose `flush` has given up: it stops reading, stays "connected", tells nobody."""
        if self._pongs and self._pongs[0].done():
            self._pongs[0] = asyncio.get_running_loop().create_future()
        await super()._process_pong()

    async def farewell(self) -> None:
        """Flushes for a moment, then closes; a bus that is gone does not hold up an exit."""
        self._closing = True
        try:
            if self.is_connected:
                await self.flush(timeout=1)
        except (TimeoutError, nats.errors.Error, OSError):
            log.debug("bus_closed_unflushed", connection=self._label)
        await self.close()

    async def _say_error(self, error: Exception) -> None:
        text = f"{type(error).__name__}: {error}"
        if self._closing:
            return
        if "permissions violation" in text.lower():
            self.denied = [*self.denied, str(error)][:10]
            log.warning("bus_permission_denied", connection=self._label, detail=str(error))
        elif text != self._last_error:
            log.warning("bus_trouble", connection=self._label, detail=text)
        self._last_error = text

    async def _say_disconnected(self) -> None:
        if not self._closing:
            log.warning("bus_disconnected", connection=self._label)

    async def _say_reconnected(self) -> None:
        self._last_error = ""
        log.info("bus_reconnected", connection=self._label)
        for hook in self._hooks:
            await hook()


def reply_subject(request: Request) -> str:
    """Where the asker of a micro service waits for the answer; empty for a plain publish."""
    return request._msg.reply  # noqa: SLF001


def last_endpoint(service: Service) -> Endpoint:
    """The endpoint that was added last: `Service.add_endpoint` does not return it."""
    endpoint: Endpoint = service._endpoints[-1]  # noqa: SLF001
    return endpoint


def forget_endpoint(service: Service, endpoint: Endpoint) -> Subscription | None:
    """Takes an endpoint out of a micro service, and returns its subscription for `Client.drain_callbacks`."""
    service._endpoints.remove(endpoint)  # noqa: SLF001
    return endpoint._subscription  # noqa: SLF001


def _legible(name: bytes) -> bytes:
    """As it is, but what is no UTF-8 in it is spelled out with backslashes, which no name of ours has."""
    return name if name.isascii() else name.decode(errors="backslashreplace").encode()


async def connect(
    settings: Settings,
    name: str,
    *,
    inbox_prefix: str = subjects.INBOX_PREFIX,
    reconnected: Hook | None = None,
) -> Client:
    """A client that is connected now and reconnects for ever; waits for as long as no server is there.

    `name` is what `nats server report connections` shows; `reconnected` as in
    `Client.on_reconnect`.
    """
    address, identity = _address_and_identity(settings)
    client = Client(name)
    if reconnected:
        client.on_reconnect(reconnected)
    await client.connect(
        address,
        name=name,
        **({"inbox_prefix": inbox_prefix} | identity),
        max_reconnect_attempts=-1,
        reconnect_to_server_handler=_next_server,
        reconnect_time_wait=1,  # between attempts of the first connection; later ones follow _next_server
        connect_timeout=5,
        ping_interval=PING_INTERVAL_SECONDS,
        max_outstanding_pings=MAX_OUTSTANDING_PINGS,
        pending_size=PENDING_BYTES,
        error_cb=client._say_error,  # noqa: SLF001  # our own class
        disconnected_cb=client._say_disconnected,  # noqa: SLF001
        reconnected_cb=client._say_reconnected,  # noqa: SLF001
    )
    return client


def _address_and_identity(settings: Settings) -> tuple[str, dict[str, Any]]:
    """NATS_URL and NATS_CREDS win over what the context that NATS_CONTEXT names says."""
    context = (
        cli_contexts.load(settings.NATS_CONTEXT)
        if settings.NATS_CONTEXT
        else cli_contexts.Context()
    )
    identity = cli_contexts.connect_options(context)
    if settings.NATS_CREDS:
        identity["user_credentials"] = settings.NATS_CREDS
    return settings.NATS_URL or context.url or settings.nats_url, identity


@asynccontextmanager
async def connected(
    settings: Settings,
    name: str,
    *,
    inbox_prefix: str = subjects.INBOX_PREFIX,
    reconnected: Hook | None = None,
) -> AsyncIterator[Client]:
    """`connect` for the length of a block."""
    client = await connect(settings, name, inbox_prefix=inbox_prefix, reconnected=reconnected)
    try:
        yield client
    finally:
        await client.farewell()
