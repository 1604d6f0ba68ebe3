"""One enrolled host that floods the bus or opens connection after connection, on a real server.

Its permissions bound subscriptions and the size of messages; a server has no limit of messages or
connections for a user, so that the scheduler has such a host's connections closed.
"""

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

import scheduler.service
from agentd.messaging.enrolment import REQUEST_SECONDS, enroll
from bus import settings
from bus.background import background
from bus.contract import subjects
from bus.contract.enrolment import CredentialsReply, NewTokenRequest, RedeemRequest
from bus.contract.messages import encode
from bus.contract.questions import Agent
from bus.identity import credentials, enrolment_token, host
from bus.identity.keys import KeyKind, SigningKey
from bus.transport import connection
from bus.transport.inbound_limit import MOST_OF_A_HOST
from bus.transport.micro_services import ask
from gpuping.client import own_server
from gpuping.client.own_server import OwnServer
from gpuping.doctor import bus_checks
from gpuping.enrolment import service as enrolment_service
from scheduler.cluster.presence import MOST_CONNECTIONS
from tests.identity import keeping_enrolments
from tests.registering import register
from tests.waiting import until

HOSTILE, OTHER = "hostile", "other"


class RawConnection:
    """A connection that speaks the protocol itself, and minds no answer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self._reader = reader
        self.read = b""
        self._task = asyncio.create_task(self._read())

    @classmethod
    async def open(cls, server: OwnServer, agent_id: str) -> "RawConnection":
        creds = credentials.read(server.identities.agent(agent_id))
        return await cls.open_as(server, creds.token, creds.key)

    @classmethod
    async def open_as(cls, server: OwnServer, token: str, key: SigningKey) -> "RawConnection":
        port = int(server.settings.nats_url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        greeting = json.loads((await reader.readline())[len("INFO ") :])
        signature = key.sign(greeting["nonce"].encode())
        login = {
            "jwt": token,
            "sig": base64.urlsafe_b64encode(signature).rstrip(b"=").decode(),
            "headers": True,
        }
        writer.write(b"CONNECT " + json.dumps(login).encode() + b"\r\nPING\r\n")
        raw = cls(reader, writer)
        await raw.until(b"PONG")
        return raw

    async def _read(self) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await self._reader.read(65_536):
                if b"PING\r\n" in data:
                    self.writer.write(b"PONG\r\n")
                self.read = (self.read + data)[-65_536:]
        self.read += b"CLOSED"

    async def until(self, text: bytes) -> None:
        await until(lambda: text in self.read)

    @property
    def is_closed(self) -> bool:
        return self.read.endswith(b"CLOSED")

    async def close(self) -> None:
        self.writer.close()
        await self._task


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[OwnServer]:
    async with own_server.running(settings.load({}, GPUPING_DATA_DIR=str(tmp_path)), 0) as server:
        yield server


def of_scheduler(server: OwnServer) -> settings.Settings:
    """A scheduler's settings. The host beside the hostile one has no keys, and need not wait."""
    return replace(server.settings_of("scheduler"), GPUPING_REQUIRE_SIGNED=False)


async def registered(server: OwnServer, agent_id: str) -> Agent:
    """A host registers, and waits for the answer as agentd does."""
    inbox = subjects.inbox_prefix(agent_id)
    chosen = server.settings_of_agent(agent_id)
    async with connection.connected(chosen, "test", inbox_prefix=inbox) as client:
        return await register(client, agent_id)


@contextlib.asynccontextmanager
async def scheduler_and_enrolment(server: OwnServer) -> AsyncIterator[enrolment_service.Enrolment]:
    """Both at work, and the scheduler knows the connections that it may have to close."""
    authority = server.identities.authority
    async with (
        scheduler.service.running(of_scheduler(server)) as running,
        enrolment_service.running(server.settings_of("enrolment"), authority) as enrolment,
    ):
        await until(lambda: running.presence.is_known)
        yield enrolment


async def flooding_until_closed(server: OwnServer, subject: str) -> RawConnection:
    """Asks without end on a subject. Returns the connection once the server has closed it."""
    hostile = await RawConnection.open(server, HOSTILE)
    await flood_until_closed(hostile, b"PUB %b _INBOX.hostile.x 2\r\n{}\r\n" % subject.encode())
    return hostile


async def flood_until_closed(hostile: RawConnection, frame: bytes) -> None:
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(60):
            while not hostile.is_closed:
                hostile.writer.write(frame * (2 * MOST_OF_A_HOST))
                await hostile.writer.drain()


async def test_a_host_that_floods_is_cut_off_and_others_are_answered(server: OwnServer) -> None:
    """It was enough to keep a scheduler from everything else: no ping of any host was answered."""
    with capture_logs() as logged:
        async with scheduler.service.running(of_scheduler(server)) as running:
            await until(lambda: running.presence.is_known)
            hostile = await flooding_until_closed(server, subjects.register(HOSTILE))
            agent = await registered(server, OTHER)
            assert agent.agent_id == OTHER
            await hostile.close()
    said = [entry for entry in logged if entry["event"] == "connections_closed"]
    assert [entry["agent_id"] for entry in said] == [HOSTILE]


async def test_a_flood_for_an_id_that_no_agent_can_have_ends_no_scheduler(
    server: OwnServer,
) -> None:
    """An operator may ask for any id, and a mistaken script of his may do so without end."""
    inbox = subjects.service_inbox("operator")
    async with (
        scheduler.service.running(of_scheduler(server)) as running,
        connection.connected(
            server.settings_of("operator"), "script", inbox_prefix=inbox
        ) as script,
    ):
        await until(lambda: running.presence.is_known)
        for _ in range(3 * MOST_OF_A_HOST):
            await script.publish(subjects.register("_nobody"), b"{}")
        await script.flush()
        assert (await registered(server, OTHER)).agent_id == OTHER


async def test_a_host_that_floods_the_enrolment_is_cut_off_too(server: OwnServer) -> None:
    """The server ended the service's own connection: no other host was let in meanwhile."""
    with capture_logs() as logged:
        async with scheduler_and_enrolment(server) as enrolment:
            hostile = await flooding_until_closed(server, subjects.renew(HOSTILE))
            assert (await enrolment.new_token(NewTokenRequest(agent_id=OTHER))).token
            await hostile.close()
    said = [entry for entry in logged if entry["event"] == "connections_closed"]
    assert [entry["agent_id"] for entry in said] == [HOSTILE]


async def test_a_guest_that_floods_is_cut_off_and_a_new_host_is_let_in(
    server: OwnServer, tmp_path: Path
) -> None:
    """Whoever had a token that was still good could ask for redemption without end."""
    with capture_logs() as logged:
        async with scheduler_and_enrolment(server) as enrolment:
            token = enrolment_token.parse((await enrolment.new_token(NewTokenRequest())).token)
            hostile = await RawConnection.open_as(server, token.user_token, token.key)
            frame = b"PUB %b _INBOX.x 2\r\n{}\r\n" % subjects.redeem(token.name).encode()
            await flood_until_closed(hostile, frame)
            offer = await enrolment.new_token(NewTokenRequest(agent_id=OTHER))
            chosen = settings.load({}, GPUPING_DATA_DIR=str(tmp_path / OTHER))
            enrolled = await enroll(chosen, f"{offer.token}@{offer.address}")
            assert enrolled.agent_id == OTHER
            await hostile.close()
            crowd = [
                await RawConnection.open_as(server, token.user_token, token.key) for _ in range(12)
            ]
            await until(lambda: sum(one.is_closed for one in crowd) >= 12 - MOST_CONNECTIONS)
            for one in crowd:
                await one.close()
    said = [entry for entry in logged if entry["event"] == "guest_connections_closed"]
    assert [entry["guest"] for entry in said] == [token.name]


def redemption(secret: str, agent_id: str) -> RedeemRequest:
    login, signing = SigningKey.generate(KeyKind.USER), SigningKey.generate(KeyKind.USER)
    proof = host.make_proof(secret, login, signing)
    return RedeemRequest(secret=secret, default_id=agent_id, proof=proof)


async def test_a_flood_of_unnamed_redemptions_keeps_no_named_one_out(
    server: OwnServer, tmp_path: Path
) -> None:
    """An earlier agentd asks on one subject for all. It names nobody, so nobody can be cut off."""
    sent = 0
    authority = server.identities.authority

    async def flood(token: enrolment_token.EnrolmentSecret) -> None:
        nonlocal sent
        hostile = await RawConnection.open_as(server, token.user_token, token.key)
        # Nobody knows the secret, so that each costs the service a read of the bucket.
        body = encode(redemption(SigningKey.generate(KeyKind.USER).seed, HOSTILE))
        frames = b"PUB %b _INBOX.x %d\r\n%b\r\n" % (subjects.REDEEM.encode(), len(body), body)
        frames *= 1_000
        while True:
            hostile.writer.write(frames)
            await hostile.writer.drain()
            sent += 1_000
            await asyncio.sleep(0.05)  # 20,000 a second, which are all read

    async with (
        keeping_enrolments(server.settings_of("scheduler")),
        enrolment_service.running(server.settings_of("enrolment"), authority) as enrolment,
        background() as start,
    ):
        guest = (await enrolment.new_token(NewTokenRequest())).token
        start(flood(enrolment_token.parse(guest)))
        await until(lambda: sent >= 20_000)
        offer = await enrolment.new_token(NewTokenRequest(agent_id=OTHER))
        named = enrolment_token.parse(offer.token)
        creds = tmp_path / "guest.creds"
        credentials.write_secret(creds, credentials.to_text(named.user_token, named.key))
        chosen = settings.load({}, NATS_URL=server.settings.nats_url, NATS_CREDS=str(creds))
        inbox = f"{subjects.service_inbox('enrol')}.{named.name}"
        async with connection.connected(chosen, "guest", inbox_prefix=inbox) as client:
            reply = await ask(
                client,
                subjects.redeem(named.name),
                redemption(named.secret, OTHER),
                CredentialsReply,
                who="the enrolment service",
                timeout=REQUEST_SECONDS,
            )
        assert reply.agent_id == OTHER


async def test_a_flood_that_nobody_ends_keeps_no_new_host_out(
    server: OwnServer, tmp_path: Path
) -> None:
    """A host behind a leaf node has no connection here that could be closed.

    The token was redeemed over the connection that the flood filled, and that the server ended.
    """
    sent = 0

    async def flood() -> None:
        nonlocal sent
        hostile = await RawConnection.open(server, HOSTILE)
        many = 20_000
        frames = b"PUB %b _INBOX.hostile.x 2\r\n{}\r\n" % subjects.renew(HOSTILE).encode() * many
        while True:
            hostile.writer.write(frames)
            await hostile.writer.drain()
            sent += many

    authority = server.identities.authority
    async with (
        keeping_enrolments(server.settings_of("scheduler")),
        enrolment_service.running(server.settings_of("enrolment"), authority) as enrolment,
        background() as start,
    ):
        start(flood())
        await until(lambda: sent >= 500_000)  # 25 s of what the service reads
        for number in range(3):
            agent_id = f"new-{number}"
            offer = await enrolment.new_token(NewTokenRequest(agent_id=agent_id))
            chosen = settings.load({}, GPUPING_DATA_DIR=str(tmp_path / agent_id))
            enrolled = await enroll(chosen, f"{offer.token}@{offer.address}")
            assert enrolled.agent_id == agent_id


async def test_a_host_has_a_few_connections_at_most(server: OwnServer) -> None:
    with capture_logs() as logged:
        async with scheduler.service.running(of_scheduler(server)) as running:
            await until(lambda: running.presence.is_known)
            opened = [await RawConnection.open(server, HOSTILE) for _ in range(20)]
            await until(lambda: sum(one.is_closed for one in opened) >= 20 - MOST_CONNECTIONS)
            left = [one for one in opened if not one.is_closed]
            assert left == opened[-MOST_CONNECTIONS:]
            assert (await registered(server, OTHER)).agent_id == OTHER
            for one in opened:
                await one.close()
    said = [entry for entry in logged if entry["event"] == "connections_closed"]
    assert [entry["agent_id"] for entry in said] == [HOSTILE]


async def test_subscriptions_and_messages_of_a_host_are_bounded_by_its_permissions(
    server: OwnServer,
) -> None:
    hostile = await RawConnection.open(server, HOSTILE)
    frames = [b"SUB _INBOX.hostile.%d %d\r\n" % (number, number + 1) for number in range(1_000)]
    hostile.writer.write(b"".join(frames) + b"PING\r\n")
    await hostile.until(b"maximum subscriptions exceeded")
    await hostile.close()
    too_large = await RawConnection.open(server, HOSTILE)
    too_large.writer.write(b"PUB %b 65537\r\n" % subjects.register(HOSTILE).encode())
    await too_large.until(b"Maximum Payload Violation")
    await too_large.close()


async def test_a_host_that_answers_in_a_services_name_is_not_taken_for_one(
    server: OwnServer,
) -> None:
    hostile = await RawConnection.open(server, HOSTILE)
    hostile.writer.write(b"SUB $SRV.PING 1\r\nPING\r\n")
    ping = json.dumps({"name": subjects.STORAGE_SERVICE, "id": "x", "version": "9.9.9"}).encode()

    async def answer() -> None:
        await hostile.until(b"MSG $SRV.PING 1 ")
        reply = hostile.read.partition(b"MSG $SRV.PING 1 ")[2].split()[0]
        hostile.writer.write(b"PUB %b %d\r\n%b\r\n" % (reply, len(ping), ping))

    inbox = subjects.service_inbox("operator")
    chosen = server.settings_of("operator")
    async with connection.connected(chosen, "doctor", inbox_prefix=inbox) as client:
        answering = asyncio.create_task(answer())
        finding = await bus_checks.services(client)
        assert subjects.STORAGE_SERVICE not in finding.detail
        assert finding.level == "failure"
        answering.cancel()
    await hostile.close()
