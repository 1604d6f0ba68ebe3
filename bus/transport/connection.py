"""The connection to the bus: reconnects for ever, notices frozen servers, logs each change once.

A frozen server leaves its TCP connections open. Two unanswered pings 5 s apart reveal it within
15 s.

This is the only file that uses private names of nats-py (`_process_msg` and others). They are those
of the minor version to which pyproject.toml pins it.
"""

import asyncio
import contextlib
import random
import secrets
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import nats.errors
import structlog
from nats.aio.client import Client as NatsClient
from nats.aio.client import Server
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.micro.request import Request
from nats.micro.service import Endpoint, Service
from nats.nuid import NUID

from bus.addresses import has_host_and_port, is_loopback
from bus.contract import subjects
from bus.errors import BusError, SettingsError
from bus.identity import accounts, claims, credentials
from bus.identity.credentials import CredentialsError
from bus.redaction import redact_address
from bus.settings import Settings
from bus.transport import cli_contexts
from bus.transport.inbound_limit import InboundLimit

log = structlog.get_logger("bus")

PING_INTERVAL_SECONDS = 5
MAX_OUTSTANDING_PINGS = 2
FIRST_RETRY_SECONDS = 0.25
SLOWEST_RETRY_SECONDS = 8.0  # of hosts, of which thousands may return at once
SLOWEST_SERVICE_RETRY_SECONDS = 1.0  # there are few services, and everybody waits for them
REFUSAL_SECONDS = 5.0  # a server looks for an account that it does not know for 2 s
MOST_DENIALS = 100  # are remembered and logged
MOST_ERRORS = 100  # different ones, until it is connected again
REFUSED_ADVICE = (
    "the bus does not believe these credentials: they are missing, expired, revoked, void since a "
    "rotation, or of another fleet; `gpuping creds list` says which"
)
LISTEN_SECONDS = 2.0  # for a TCP connection, before anything is asked over it
PENDING_BYTES = 8 * 1024 * 1024

_ERRORS_OF_ONE_MESSAGE = ("permissions violation", "stale connection")

Hook = Callable[[], Awaitable[None]]


def _next_server(
    slowest_retry_seconds: float,
) -> Callable[[list[Server], dict[str, Any]], tuple[Server, float]]:
    """Chooses the server with the fewest attempts, and a back-off with jitter.

    Without jitter a whole fleet would reconnect in the same moment.
    """

    def choose(servers: list[Server], _info: dict[str, Any]) -> tuple[Server, float]:
        server = min(servers, key=lambda candidate: candidate.reconnects)
        doublings = min(server.reconnects, 10)
        longest = min(slowest_retry_seconds, FIRST_RETRY_SECONDS * 2.0**doublings)
        # it spreads load, and keeps no secret
        seconds = random.uniform(longest / 2, longest)  # noqa: S311
        return server, seconds

    return choose


class UnguessableIds(NUID):
    """Makes inboxes, and subjects of answers in them, that nobody can guess from one another.

    nats-py counts them up behind one prefix. The server of a site, and a service in an account of
    its own, may send to any inbox: from the reply subject of one ping they knew where the next
    answer of JetStream was awaited.
    """

    def next(self) -> bytearray:
        """Returns 88 random bits, in as many characters as nats-py's own."""
        return bytearray(secrets.token_hex(11).encode())


class Client(NatsClient):
    """A connection that logs each change once, where nats-py reports every failed attempt."""

    def __init__(self, name: str, inbound_limit: InboundLimit | None = None) -> None:
        super().__init__()
        self._nuid = UnguessableIds()
        self._label = name
        self._inbound_limit = inbound_limit
        self._said_errors: set[str] = set()  # since it was connected last
        self._closing = False
        self._hooks: list[Hook] = []
        self.refused_replies: dict[str, int] = {}  # questions that were dropped, by subscription
        self.denied: list[str] = []  # different permission errors, in the server's words
        self.lives_apart = False  # in an account of its own (bus/identity/accounts.py)
        self._listeners: dict[int, Callable[[Msg], None]] = {}  # by subscription

    @property
    def refused_reply_count(self) -> int:
        """How many questions were dropped because their reply subject is no inbox."""
        return sum(self.refused_replies.values())

    @property
    def address(self) -> str:
        """The server that it is connected to; empty while it is not."""
        return self.connected_url.geturl() if self.connected_url else ""

    def was_denied(self, subject: str) -> bool:
        """Whether the server has refused a publish to this subject lately."""
        quoted = f'"{subject.lower()}"'
        return any(quoted in text.lower() for text in self.denied)

    def on_reconnect(self, hook: Hook) -> None:
        """Awaits `hook` after each reconnection: the server has dropped all pull requests then."""
        self._hooks.append(hook)

    async def send_frames(self, frames: list[bytes]) -> None:
        """Sends complete protocol frames in order, in one write.

        nats-py's `publish` costs some 15 us with headers. Most of that are checks and flushes,
        which a batch of a thousand messages needs only once (docs/benchmarks.md). Raises
        OutboundBufferLimitError without a connection.
        """
        if not frames:
            return
        if not self.is_connected:
            raise nats.errors.OutboundBufferLimitError
        await self._send_command(b"".join(frames))
        await self._flush_pending()

    @asynccontextmanager
    async def listening(
        self, subject: str, on_message: Callable[[Msg], None]
    ) -> AsyncIterator[None]:
        """Calls `on_message` with each message as it is read, for the length of a block.

        nats-py's own way, a queue and a task for each subscription, costs 5 us more a message.
        `on_message` must be quick; exceptions from it are logged. It is meant for an inbox, on
        which nothing arrives before it is asked for.
        """
        subscription = await self.subscribe(subject)
        self._listeners[subscription._id] = on_message  # noqa: SLF001
        try:
            yield
        finally:
            del self._listeners[subscription._id]  # noqa: SLF001
            if not self.is_closed:
                await subscription.unsubscribe()

    async def _process_msg(
        self,
        sid: int,
        subject: bytes,
        reply: bytes,
        data: bytes,
        headers: bytes,
    ) -> None:
        """Delivers a message, whose subject and reply may be any bytes.

        nats-py raises for a subject that is not UTF-8, which ends the reading of the connection,
        and again after each reconnection.
        """
        subject = _as_utf8(subject)
        reply = _as_utf8(reply)
        if self._inbound_limit is not None and not await self._inbound_limit.admits(subject):
            return
        if reply and not self._may_answer(sid, reply.decode()):
            return
        on_message = self._listeners.get(sid)
        if on_message is None:
            await super()._process_msg(sid, subject, reply, data, headers)
            return
        self.stats["in_msgs"] += 1
        self.stats["in_bytes"] += len(data)
        decoded = None
        if headers:
            decoded = await self._process_headers(headers)
        message = self._build_message(sid, subject, reply, data, decoded)
        try:
            on_message(message)
        except Exception:  # raised further, it would end the reading of the whole connection
            log.exception("message_handler_crashed", subject=message.subject)

    def _may_answer(self, sid: int, reply: str) -> bool:
        """Whether a message with this reply subject is delivered.

        What arrives in an inbox of our own was asked for, and may carry a reply subject of
        JetStream's. Every other subscription hears questions of others, which are answered to
        inboxes only (`subjects.is_inbox`); a question with another reply subject is dropped.
        """
        if subjects.is_inbox(reply):
            return True
        subscription = self._subs.get(sid)
        if subscription is None:
            return False
        heard_on = subscription.subject
        if subjects.is_inbox(heard_on):
            return True
        if heard_on not in self.refused_replies:
            log.warning(
                "reply_subject_refused",
                connection=self._label,
                subject=heard_on,
                reply=reply[:200],
            )
            self.refused_replies[heard_on] = 0
        self.refused_replies[heard_on] += 1
        return False

    async def _process_headers(self, headers: bytes) -> dict[str, str] | None:
        """Returns None for headers that cannot be decoded: a publisher may send any bytes."""
        try:
            return await super()._process_headers(headers)
        except (ValueError, IndexError) as error:
            log.warning("headers_decode_failed", connection=self._label, detail=f"{error}")
            return None

    async def flush(self, timeout: float = 10) -> None:
        """Returns when the server has received everything sent so far. Raises FlushTimeoutError.

        nats-py 2.16 writes its PING before the commands that wait for its flusher, so that a
        subscription may not exist yet when its `flush` returns. Here those commands go first.
        """
        try:
            async with asyncio.timeout(timeout):  # a frozen server accepts no more bytes
                await self._flush_pending(force_flush=True)
        except TimeoutError:
            raise nats.errors.FlushTimeoutError from None
        await super().flush(timeout)  # type: ignore[arg-type]

    @property
    def server_count(self) -> int:
        """How many servers the bus has, by the addresses that were given and by what they tell.

        Servers that cannot or must not name each other (`no_advertise`) tell of none.
        """
        given = [server for server in self._server_pool if not server.discovered]
        return max(1, len(given), len(self.discovered_servers))

    async def settle(self) -> None:
        """A flush that may fail: nats-py repeats the subscriptions when it reconnects."""
        with contextlib.suppress(nats.errors.Error, TimeoutError, OSError):
            await self.flush()

    async def drain_callbacks(self, subscriptions: list[Subscription]) -> None:
        """Ends subscriptions once their callbacks have had what the server sent on them before."""
        for subscription in subscriptions:
            await self._send_unsubscribe(subscription._id)  # noqa: SLF001
        await self.settle()
        for subscription in subscriptions:
            await subscription._pending_queue.join()  # noqa: SLF001
            await subscription.unsubscribe()

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        """Refuses a server without TLS where the address asks for it, or is not on loopback.

        nats-py 2.16 takes `tls://` for a wish: whoever stands between and leaves `tls_required` out
        of the server's greeting would be spoken to in the clear. The servers of a cluster that the
        greeting names are held to the same.
        """
        if initial_connection and not info.get("tls_required") and self._current_server:
            uri = self._current_server.uri
            if uri.scheme == "tls" or not is_private(uri.geturl()):
                log.warning(
                    "bus_without_tls_refused",
                    connection=self._label,
                    bus=redact_address(uri.geturl()),
                    action="give the server a certificate: `gpuping creds init --tls-names`",
                )
                raise nats.errors.SecureConnWantedError
        await super()._process_info(info, initial_connection)

    async def _process_err(self, err_msg: str) -> None:
        """Reconnects after an error with which the server ends the connection.

        nats-py 2.16 closes for good instead. Credentials that have expired are the common case:
        their file has newer ones by then.
        """
        is_harmless = any(word in err_msg.lower() for word in _ERRORS_OF_ONE_MESSAGE)
        if is_harmless or not self.is_connected:
            await super()._process_err(err_msg)
            return
        await self._process_op_err(nats.errors.Error(f"nats: {err_msg.strip(chr(39))}"))

    async def _process_pong(self) -> None:
        """Accepts a PONG for a `flush` that has timed out.

        nats-py 2.16 raises for it, stops reading and still appears connected.
        """
        if self._pongs and self._pongs[0].done():
            self._pongs[0] = asyncio.get_running_loop().create_future()
        await super()._process_pong()

    async def farewell(self) -> None:
        """Flushes for at most 1 s, then closes, so that a lost bus does not delay an exit."""
        self._closing = True
        try:
            if self.is_connected:
                await self.flush(timeout=1)
        except (TimeoutError, nats.errors.Error, OSError):
            log.debug("bus_flush_failed", connection=self._label)
        await self.close()

    async def _log_error(self, error: Exception) -> None:
        text = f"{type(error).__name__}: {error}"
        if self._closing:
            return
        if "permissions violation" in text.lower():
            self._say_denied(str(error))
        elif text not in self._said_errors and len(self._said_errors) < MOST_ERRORS:
            self._said_errors.add(text)
            advice = {}
            if "authorization violation" in text.lower():
                advice["action"] = REFUSED_ADVICE
            log.warning("bus_error_reported", connection=self._label, detail=text, **advice)

    def _say_denied(self, detail: str) -> None:
        """Logs what the server does not let this connection do, once for each subject."""
        if detail in self.denied or len(self.denied) >= MOST_DENIALS:
            return
        self.denied.append(detail)
        log.warning("bus_permission_denied", connection=self._label, detail=detail)

    async def _log_disconnected(self) -> None:
        if not self._closing:
            log.warning("bus_disconnected", connection=self._label)

    async def _after_reconnect(self) -> None:
        self._said_errors.clear()
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


@contextlib.contextmanager
def on_connection(service: Service, client: "Client") -> Iterator[None]:
    """What is added to a micro service within the block hears its questions on this connection."""
    own = service._client  # noqa: SLF001
    service._client = client  # noqa: SLF001
    try:
        yield
    finally:
        service._client = own  # noqa: SLF001


def forget_endpoint(service: Service, endpoint: Endpoint) -> Subscription | None:
    """Removes an endpoint from a micro service; its subscription is left to the caller to end."""
    service._endpoints.remove(endpoint)  # noqa: SLF001
    return endpoint._subscription  # noqa: SLF001


def _as_utf8(name: bytes) -> bytes:
    """The name with invalid UTF-8 as backslash escapes, which no valid subject contains."""
    if name.isascii():
        return name
    return name.decode(errors="backslashreplace").encode()


async def connect(
    settings: Settings,
    name: str,
    *,
    inbox_prefix: str = subjects.INBOX_PREFIX,
    reconnected: Hook | None = None,
    slowest_retry_seconds: float = SLOWEST_SERVICE_RETRY_SECONDS,
    inbound_limit: InboundLimit | None = None,
) -> Client:
    """Connects, and waits for as long as there is no server. The client reconnects for ever.

    `name` is what `nats server report connections` shows; `reconnected` as in
    `Client.on_reconnect`. `slowest_retry_seconds`: the longest pause before it is tried again.
    `inbound_limit`: limits what is read and delivered.
    """
    addresses, identity = _addresses_and_identity(settings)
    _check_addresses(addresses)
    client = Client(name, inbound_limit)
    if "user_credentials" in identity:
        user = _user_of(settings, Path(identity["user_credentials"]))
        client.lives_apart = user.removeprefix("_") in accounts.apart() and user.startswith("_")
    if reconnected:
        client.on_reconnect(reconnected)
    await client.connect(
        addresses,
        name=name,
        **({"inbox_prefix": inbox_prefix} | identity),
        max_reconnect_attempts=-1,
        reconnect_to_server_handler=_next_server(slowest_retry_seconds),
        reconnect_time_wait=1,  # while the first connection is tried; then see _next_server
        connect_timeout=5,
        ping_interval=PING_INTERVAL_SECONDS,
        max_outstanding_pings=MAX_OUTSTANDING_PINGS,
        pending_size=PENDING_BYTES,
        error_cb=client._log_error,  # noqa: SLF001
        disconnected_cb=client._log_disconnected,  # noqa: SLF001
        reconnected_cb=client._after_reconnect,  # noqa: SLF001
    )
    return client


async def refusal(settings: Settings) -> str | None:
    """The server's words where it refuses these credentials; None where it does not, or is away.

    `connect` waits instead, because a server may learn of a new account later. Raises BusError
    where the server's certificate is not believed.
    """
    addresses, identity = _addresses_and_identity(settings)
    if not await _does_any_listen(addresses):
        return None  # nats-py would try until the time is over

    async def keep_quiet(_error: Exception) -> None:
        """The error is raised as well."""

    client = NatsClient()
    try:
        async with asyncio.timeout(REFUSAL_SECONDS):
            await client.connect(
                addresses,
                allow_reconnect=False,
                connect_timeout=int(REFUSAL_SECONDS),
                error_cb=keep_quiet,
                **identity,
            )
    except ssl.SSLCertVerificationError as error:
        raise BusError(
            f"the certificate of the bus at {settings.shown_nats_url} is not believed: "
            f"{error.verify_message}; NATS_CA names the file of the authority that signed it"
        ) from None
    except (nats.errors.Error, OSError, TimeoutError) as error:
        text = str(error)
        if "auth" in text.lower():
            return text
        return None
    await client.close()
    return None


async def _does_any_listen(addresses: list[str]) -> bool:
    """Whether one of these servers takes a TCP connection."""
    for address in addresses:
        parts = urlsplit(address if "://" in address else f"nats://{address}")
        try:
            async with asyncio.timeout(LISTEN_SECONDS):
                _, writer = await asyncio.open_connection(parts.hostname, parts.port or 4222)
        except (OSError, TimeoutError, ValueError):
            continue
        writer.close()
        return True
    return False


def _addresses_and_identity(settings: Settings) -> tuple[list[str], dict[str, Any]]:
    """The addresses and the identity's options. NATS_URL and NATS_CREDS override NATS_CONTEXT.

    Several addresses have commas between them, in NATS_URL and in a context alike. They are handed
    to nats-py one by one, because it takes `a,b` for the name of one host.
    """
    context = cli_contexts.Context()
    if settings.NATS_CONTEXT:
        context = cli_contexts.load(settings.NATS_CONTEXT)
    identity = cli_contexts.connect_options(context)
    if settings.NATS_CREDS:
        identity["user_credentials"] = str(Path(settings.NATS_CREDS).expanduser())
    if settings.NATS_CA:
        identity["tls"] = cli_contexts.trusting(settings.NATS_CA)
    named = settings.NATS_URL or context.url or settings.nats_url
    addresses = []
    for part in named.split(","):
        address = part.strip()
        if address and "tls" in identity:
            address = _with_tls(address)
        if address:
            addresses.append(address)
    return addresses, identity


def _with_tls(address: str) -> str:
    """The address with a scheme that needs TLS: whoever names a certificate wants it checked."""
    scheme, separator, rest = address.rpartition("://")
    if scheme in {"ws", "wss"}:
        return f"wss{separator}{rest}"
    return f"tls://{rest}"


def _user_of(settings: Settings, path: Path) -> str:
    """Whose credentials these are. Raises SettingsError, or CredentialsError for a context's."""
    try:
        return claims.name_of(credentials.read(path).token)
    except CredentialsError as error:
        if settings.NATS_CREDS:
            raise SettingsError(f"NATS_CREDS={settings.NATS_CREDS!r}: {error}") from None
        raise


def _check_addresses(addresses: list[str]) -> None:
    """Raises SettingsError for what is no address, and for a bus outside loopback without TLS.

    Everything that is paid for goes over this connection, and whoever is on the way could read it,
    change it, or answer in the place of the bus.
    """
    for url in addresses:
        if not has_host_and_port(url):
            raise SettingsError(
                f"NATS_URL={redact_address(url)!r}: expected an address like "
                "nats://127.0.0.1:4222 or nats://[::1]:4222"
            )
    websockets = [url for url in addresses if url.startswith(("ws://", "wss://"))]
    if websockets and len(websockets) < len(addresses):
        shown = ",".join(map(redact_address, addresses))
        raise SettingsError(
            f"NATS_URL={shown!r}: expected addresses of one kind: WebSocket (ws://, wss://) cannot "
            "be mixed with others"
        )
    for url in addresses:
        if not is_private(url):
            shown = redact_address(url)
            host = urlsplit(_with_scheme(url)).hostname or "HOST"
            raise SettingsError(
                f"NATS_URL={shown!r}: outside loopback the bus needs TLS: write tls:// instead of "
                f"nats://; `gpuping creds init --tls-names {host}` makes the certificate of the bus"
            )


def is_private(url: str) -> bool:
    """Whether nobody else can hear or change what is said to this server."""
    parts = urlsplit(_with_scheme(url))
    if parts.scheme in {"tls", "wss"}:
        return True
    return is_loopback(parts.hostname or "")


def _with_scheme(url: str) -> str:
    if "://" in url:
        return url
    return f"nats://{url}"


@asynccontextmanager
async def connected(
    settings: Settings,
    name: str,
    *,
    inbox_prefix: str = subjects.INBOX_PREFIX,
    reconnected: Hook | None = None,
    slowest_retry_seconds: float = SLOWEST_SERVICE_RETRY_SECONDS,
    inbound_limit: InboundLimit | None = None,
) -> AsyncIterator[Client]:
    """`connect` for the length of a block."""
    client = await connect(
        settings,
        name,
        inbox_prefix=inbox_prefix,
        reconnected=reconnected,
        slowest_retry_seconds=slowest_retry_seconds,
        inbound_limit=inbound_limit,
    )
    try:
        yield client
    finally:
        await client.farewell()
