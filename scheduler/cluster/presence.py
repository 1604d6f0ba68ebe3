"""Which agents have a connection to the bus, as the server itself says.

The server's system account announces every connection and its end: a closed socket within
milliseconds, a host that is frozen or cut off when it has missed two of the server's pings.
Presence is shown and never judged: it takes no part in the ping policy.

Announcements can be lost, and a server that is killed announces nothing. So after each
reconnection, and every SNAPSHOT_SECONDS, all servers are asked for their connections.

Two connections of one identity are two hosts, or one host that was cut off and came back before the
server closed its old connection. Looks tell them apart within seconds: the sessions of two agents
answer in turn, an old connection answers nothing. Whoever does not answer is told by the time:
servers close a dead connection within TWIN_SECONDS.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import msgspec
import nats.errors
import structlog
from msgspec import Struct
from nats.aio.msg import Msg

from bus.background import background, wait_at_most
from bus.clock import boottime, utc_now
from bus.contract import subjects
from bus.contract.questions import LostGateway
from bus.errors import BadMessageError, GpupingError
from bus.identity import claims, credentials
from bus.identity.authority import GATEWAYS_TAG
from bus.identity.claims import InvalidTokenError
from bus.rate_limit import RateLimit
from bus.settings import Settings
from bus.transport import connection
from bus.transport.connection import Client
from scheduler.cluster.gateway_connections import ConnectionId, GatewayConnections
from scheduler.cluster.guest_connections import GuestConnections, guest_of

log = structlog.get_logger("scheduler.cluster.presence")

SNAPSHOT_SECONDS = 30.0
ANSWERS_SECONDS = 1.0  # how long servers are waited for; each answers for itself
PAGE_SIZE = 1024
# Two connections of one agent for so long are two hosts: one that was cut off is closed by then,
# because the servers of a fleet ask every 4 s (deploy/nats.conf).
TWIN_SECONDS = 20.0
TWIN_CHECK_SECONDS = 1.0
LOOKS = 12  # of one check: each goes to one of the two by chance
LOOK_SECONDS = 1.0
MOST_CONNECTIONS = 8  # of one agent: those that it lost and the server has not missed yet
LOGGED_PER_SECOND = 1 / 60  # lines about each agent whose connections are closed
LOOKED_AT_A_TIME = 4  # agents; after an outage of the network many have two connections for a while
RETRY_SECONDS = 2.0
GATEWAY_USER = "_gateway"


class _ConnectedClient(Struct, frozen=True):
    id: int
    acc: str = ""
    jwt: str = ""
    host: str = ""


class _Server(Struct, frozen=True):
    id: str


class _Advisory(Struct, frozen=True):
    server: _Server
    client: _ConnectedClient
    reason: str = ""  # of a connection's end


class _ListedConnection(Struct, frozen=True):
    cid: int
    jwt: str = ""
    ip: str = ""


class _ConnectionPage(Struct, frozen=True):
    server_id: str
    total: int
    connections: tuple[_ListedConnection, ...] | None = None


class _ConnectionAnswer(Struct, frozen=True):
    data: _ConnectionPage


class _Listed(NamedTuple):
    """The connections that servers listed, with their addresses; those of agents by their id."""

    agents: dict[ConnectionId, tuple[str, str]]
    gateways: dict[ConnectionId, str]
    guests: dict[ConnectionId, str]

    def take(self, connection_id: ConnectionId, one: _ListedConnection) -> None:
        """Adds a connection, if it is of an agent, a gateway or a guest."""
        if _is_gateway(one.jwt):
            self.gateways[connection_id] = one.ip
        guest = guest_of(one.jwt)
        if guest is not None:
            self.guests[connection_id] = guest
        agent_id = _agent_of(one.jwt)
        if agent_id is not None:
            self.agents[connection_id] = (agent_id, one.ip)


class Presence:
    """Keeps the connections of every agent.

    `on_known` is called once with the agents that are connected, `on_change(agent_id, connected)`
    at every change after that. `on_twins(agent_id, hosts)` is called with the addresses of the
    hosts when two are found under one identity, and with none when there is one again.
    `on_snapshot` is called with the connection of the system account whenever the servers were
    asked.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        on_known: Callable[[Iterable[str]], None],
        on_change: Callable[[str, bool], None],
        on_twins: Callable[[str, tuple[str, ...]], None],
        on_snapshot: Callable[[Client], Awaitable[None]],
        look: Callable[[str], Awaitable[str | None]],
    ) -> None:
        """`look` asks an agent, and returns the session that answered; None without an answer."""
        self._settings = settings
        self._look = look
        self._on_known = on_known
        self._on_change = on_change
        self._on_twins = on_twins
        self._on_snapshot = on_snapshot
        self._account = ""
        self._gateways_account: str | None = None  # None where the system user's token names none
        self._connections: dict[str, set[ConnectionId]] = {}
        self._agents: dict[ConnectionId, str] = {}
        self._hosts: dict[ConnectionId, str] = {}
        self._several_since: dict[str, float] = {}
        self._twins: set[str] = set()
        self._gateways = GatewayConnections()
        self._guests = GuestConnections()
        self._client: Client | None = None  # of the system account, while it is connected
        self._closings: set[asyncio.Task[None]] = set()
        self._closing_logs = RateLimit(LOGGED_PER_SECOND, 1.0)
        self.is_known = False  # whether the servers were asked once

    @property
    def gateways(self) -> int | None:
        """How many gateways are connected.

        None while that is not known, and where the account that they are in is not.
        """
        if not self.is_known or (self._gateways_account is None and len(self._gateways) == 0):
            return None
        return len(self._gateways)

    def lost_gateways(self, now: datetime) -> tuple[LostGateway, ...]:
        """Returns the gateways that froze or were cut off lately, and are not back."""
        return self._gateways.lost(now)

    async def run(self) -> None:
        """Follows the connections until cancelled; does nothing without NATS_SYSTEM_CREDS."""
        if not self._settings.NATS_SYSTEM_CREDS or not self._settings.NATS_CREDS:
            return
        while True:
            try:
                await self._follow()
            except (GpupingError, nats.errors.Error, OSError, TimeoutError) as error:
                log.warning("presence_failed", detail=str(error), action="trying again")
            await asyncio.sleep(RETRY_SECONDS)

    async def _follow(self) -> None:
        own = credentials.read(Path(self._settings.NATS_CREDS or "").expanduser())
        self._account = str(claims.decode(own.token).nats.get("issuer_account", ""))
        if self._settings.NATS_SYSTEM_CREDS:
            system = credentials.read(Path(self._settings.NATS_SYSTEM_CREDS).expanduser())
            self._gateways_account = _gateways_account(system.token)
        as_system = msgspec.structs.replace(
            self._settings, NATS_CREDS=self._settings.NATS_SYSTEM_CREDS, NATS_CONTEXT=None
        )
        async with connection.connected(as_system, "presence") as client:
            ask_again = asyncio.Event()

            async def reconnected() -> None:
                ask_again.set()

            client.on_reconnect(reconnected)
            self._client = client
            async with AsyncExitStack() as stack:
                for account in self._accounts():
                    connects = client.listening(subjects.account_connect(account), self._connected)
                    await stack.enter_async_context(connects)
                    ends = client.listening(
                        subjects.account_disconnect(account), self._disconnected
                    )
                    await stack.enter_async_context(ends)
                start = await stack.enter_async_context(background())
                start(self._watch_for_twins())
                while True:
                    await self._take_snapshot(client)
                    await self._on_snapshot(client)
                    await wait_at_most(ask_again, SNAPSHOT_SECONDS)
                    ask_again.clear()

    def _accounts(self) -> list[str]:
        """The agents' account, and the one that gateways are in, where that is another."""
        if self._gateways_account in {None, self._account}:
            return [self._account]
        return [self._account, str(self._gateways_account)]

    def _connected(self, message: Msg) -> None:
        advisory = _decoded(message.data)
        if advisory is None:
            return
        connection_id = ConnectionId(advisory.server.id, advisory.client.id)
        if _is_gateway(advisory.client.jwt):
            self._gateways.add(connection_id, advisory.client.host)
        guest = guest_of(advisory.client.jwt)
        if guest is not None:
            self._add_guest(guest, connection_id)
        agent_id = _agent_of(advisory.client.jwt)
        if agent_id is not None:
            self._add(agent_id, connection_id, advisory.client.host)

    def _disconnected(self, message: Msg) -> None:
        """Only the connection that ended is taken out: the agent may have a newer one."""
        advisory = _decoded(message.data)
        if advisory is not None:
            connection_id = ConnectionId(advisory.server.id, advisory.client.id)
            self._gateways.end(connection_id, advisory.reason, utc_now())
            self._guests.end(connection_id)
            self._remove(connection_id)

    async def _take_snapshot(self, client: Client) -> None:
        """Replaces what is known by what the servers list. Without an answer it stays."""
        began = set(self._agents)
        gateways_before = self._gateways.ids()
        guests_before = self._guests.ids()
        pages = await self._every_page(client, self._account)
        if not pages:
            return
        listed = _Listed({}, {}, {})
        for account in self._accounts()[1:]:
            pages += await self._every_page(client, account)
        for page in pages:
            for one in page.connections or ():
                listed.take(ConnectionId(page.server_id, one.cid), one)
        self._gateways.replace(gateways_before, listed.gateways)
        self._guests.replace(guests_before, listed.guests)
        for connection_id, (agent_id, address) in listed.agents.items():
            self._add(agent_id, connection_id, address)
        for connection_id in began - set(listed.agents):
            self._remove(connection_id)
        if not self.is_known:
            self.is_known = True
            self._on_known(self._connections)

    async def _every_page(self, client: Client, account: str) -> list[_ConnectionPage]:
        """All connections of an account; empty where no server answers."""
        found: list[_ConnectionPage] = []
        offset = 0
        while True:
            pages = await self._pages(client, account, offset)
            found += pages
            offset += PAGE_SIZE
            if offset >= max((page.total for page in pages), default=0):
                return found

    async def _pages(self, client: Client, account: str, offset: int) -> list[_ConnectionPage]:
        """Asks all servers for one page of the connections of an account."""
        pages: list[_ConnectionPage] = []
        enough = asyncio.Event()
        inbox = client.new_inbox()

        def receive(message: Msg) -> None:
            try:
                answer = msgspec.json.decode(message.data, type=_ConnectionAnswer)
            except msgspec.DecodeError as error:
                log.warning("connections_decode_failed", detail=str(error))
                return
            pages.append(answer.data)
            if len(pages) >= client.server_count:
                enough.set()

        body = {"auth": True, "limit": PAGE_SIZE, "offset": offset}
        async with client.listening(inbox, receive):
            subject = subjects.account_connections(account)
            await client.publish(subject, msgspec.json.encode(body), reply=inbox)
            await wait_at_most(enough, ANSWERS_SECONDS)
        return pages

    def _add(
        self,
        agent_id: str,
        connection_id: ConnectionId,
        address: str,
    ) -> None:
        self._agents[connection_id] = agent_id
        known = self._connections.get(agent_id)
        if known is None:
            self._connections[agent_id] = {connection_id}
            self._hosts[connection_id] = address
            self._tell(agent_id, connected=True)
            return
        known.add(connection_id)
        self._hosts[connection_id] = address
        if len(known) > 1:
            self._several_since.setdefault(agent_id, boottime())
        if len(known) > MOST_CONNECTIONS:
            oldest = min(known, key=lambda one: one.number)
            # Its end is announced later. Until then the next one would be compared with it again.
            self._remove(oldest)
            self._close(agent_id, [oldest], f"it has more than {MOST_CONNECTIONS} connections")

    def _add_guest(self, name: str, connection_id: ConnectionId) -> None:
        self._guests.add(connection_id, name)
        known = self._guests.of(name)
        if len(known) > MOST_CONNECTIONS:
            # Its end is announced later, as that of an agent's.
            self._guests.end(known[0])
            self._close_guest(name, known[:1], f"it has more than {MOST_CONNECTIONS} connections")

    def close_connections(self, agent_id: str, reason: str) -> None:
        """Has the servers close what connections an agent has. It may connect again.

        Only the authority can shut it out (`gpuping creds revoke`).
        """
        self._close(agent_id, list(self._connections.get(agent_id, ())), reason)

    def close_guest(self, name: str, reason: str) -> None:
        """Has the servers close what connections there are with one enrolment token."""
        self._close_guest(name, self._guests.of(name), reason)

    def _close_guest(self, name: str, connection_ids: list[ConnectionId], reason: str) -> None:
        if not self._closing_logs.take(name, boottime()):
            log.error(
                "guest_connections_closed",
                guest=name,
                detail=reason,
                action="it may come again until its enrolment token expires: let tokens live short",
            )
        self._have_closed(connection_ids)

    def _close(
        self,
        agent_id: str,
        connection_ids: list[ConnectionId],
        reason: str,
    ) -> None:
        if not self._closing_logs.take(agent_id, boottime()):
            log.error(
                "connections_closed",
                agent_id=agent_id,
                detail=reason,
                action=f"look at that host; `gpuping creds revoke {agent_id}` shuts it out",
            )
        self._have_closed(connection_ids)

    def _have_closed(self, connection_ids: list[ConnectionId]) -> None:
        task = asyncio.create_task(self._kick(connection_ids))
        self._closings.add(task)
        task.add_done_callback(self._closings.discard)

    async def _kick(self, connection_ids: list[ConnectionId]) -> None:
        if self._client is None:
            return
        for one in connection_ids:
            request = msgspec.json.encode({"cid": one.number})
            try:
                # a server does nothing for who wants no answer
                await self._client.request(
                    subjects.close_connection(one.server), request, timeout=ANSWERS_SECONDS
                )
            except (nats.errors.Error, TimeoutError) as error:
                log.warning("connection_close_failed", detail=f"{type(error).__name__}: {error}")

    def _remove(self, connection_id: ConnectionId) -> None:
        agent_id = self._agents.pop(connection_id, None)
        self._hosts.pop(connection_id, None)
        if agent_id is None:
            return
        known = self._connections[agent_id]
        known.discard(connection_id)
        if len(known) < 2:
            self._several_since.pop(agent_id, None)
            if agent_id in self._twins:
                self._twins.discard(agent_id)
                self._on_twins(agent_id, ())
        if not known:
            del self._connections[agent_id]
            self._tell(agent_id, connected=False)

    def _tell(self, agent_id: str, *, connected: bool) -> None:
        if self.is_known:
            self._on_change(agent_id, connected)

    async def _watch_for_twins(self) -> None:
        while True:
            await asyncio.sleep(TWIN_CHECK_SECONDS)
            suspects = [one for one in self._several_since if one not in self._twins]
            now = boottime()
            for agent_id in suspects:
                if now - self._several_since.get(agent_id, now) >= TWIN_SECONDS:
                    self._found_twins(agent_id)
            # the newest: the older ones were looked at before
            for agent_id in suspects[-LOOKED_AT_A_TIME:]:
                if await self._answer_in_turn(agent_id):
                    self._found_twins(agent_id)

    async def _answer_in_turn(self, agent_id: str) -> bool:
        """Whether a session answers after another one did that came after it."""
        sessions: list[str] = []
        for _ in range(LOOKS):
            if agent_id not in self._several_since:
                return False
            session = await self._look(agent_id)
            if session is None:
                continue
            if session in sessions[:-1]:
                return True
            if session not in sessions:
                sessions.append(session)
        return False

    def _found_twins(self, agent_id: str) -> None:
        if agent_id not in self._several_since or agent_id in self._twins:
            return
        self._twins.add(agent_id)
        hosts = sorted(self._hosts.get(one, "") for one in self._connections[agent_id])
        self._on_twins(agent_id, tuple(hosts))


def _decoded(data: bytes) -> _Advisory | None:
    try:
        return msgspec.json.decode(data, type=_Advisory)
    except msgspec.DecodeError as error:
        log.warning("advisory_decode_failed", detail=str(error))
        return None


def _agent_of(token: str) -> str | None:
    """Returns the agent whose credentials these are; None for a service or a stranger.

    The server has verified the token. A service's name begins with `_`, which no agent id does.
    """
    try:
        return subjects.check_agent_id(claims.name_of(token))
    except (InvalidTokenError, BadMessageError):
        return None


def _is_gateway(token: str) -> bool:
    """Whether these are the credentials of a gateway."""
    try:
        return claims.name_of(token) == GATEWAY_USER
    except InvalidTokenError:
        return False


def _gateways_account(token: str) -> str | None:
    for tag in claims.decode(token).nats.get("tags") or ():
        if str(tag).startswith(GATEWAYS_TAG):
            return str(tag).removeprefix(GATEWAYS_TAG)
    return None
