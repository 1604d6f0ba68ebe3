"""Enrolment: a token lets one host in, once; renewals go to the recorded keys only."""

import asyncio
import base64
import os
import signal
import stat
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import nats.errors
import pytest

from agentd.messaging.enrolment import KeyAnnouncement
from bus import settings
from bus.background import background
from bus.client import audit
from bus.contract import subjects
from bus.contract.enrolment import (
    CredentialsReply,
    EnrolmentToken,
    HostKeys,
    NewTokenRequest,
    RedeemRequest,
    RenewRequest,
)
from bus.contract.messages import encode
from bus.errors import GpupingError, RefusedError
from bus.identity import claims, credentials, enrolment_token, host
from bus.identity.credentials import CredentialsError
from bus.identity.fleet_file import Issued
from bus.identity.keys import KeyKind, SigningKey
from bus.identity.local import LocalIdentities
from bus.transport import account_updates, connection, jetstream_api
from bus.transport.batch import Write, commit
from bus.transport.bucket import read
from gpuping.client import own_server
from gpuping.client.own_server import OwnServer
from gpuping.enrolment.service import Enrolment, running
from tests.identity import joined, keeping_enrolments
from tests.ports import free_port

DAY = 86_400


class World:
    """A server with identities, and the enrolment service on it."""

    def __init__(
        self,
        server: OwnServer,
        enrolment: Enrolment,
        client: connection.Client,
        writer: connection.Client,
    ) -> None:
        self.server = server
        self.enrolment = enrolment
        self.client = client  # with the service's rights
        self.writer = writer  # with those of the scheduler, which alone writes the bucket
        self.url = server.settings.nats_url

    async def token(self, agent_id: str | None = None) -> enrolment_token.EnrolmentSecret:
        reply = await self.enrolment.new_token(NewTokenRequest(agent_id=agent_id))
        return enrolment_token.parse(reply.token)

    async def keys(self, agent_id: str) -> HostKeys | None:
        found = await read(self.client, subjects.host_key(agent_id), HostKeys)
        return found.value if found else None


@pytest.fixture
async def world(tmp_path: Path):
    chosen = settings.load({}, GPUPING_DATA_DIR=str(tmp_path / "data"))
    async with own_server.running(chosen, free_port()) as server:
        service_settings = server.settings_of("enrolment")
        async with (
            keeping_enrolments(server.settings_of("scheduler")) as writer,
            running(service_settings, server.identities.authority) as enrolment,
            connection.connected(
                service_settings, "test", inbox_prefix=subjects.service_inbox("enrolment")
            ) as client,
        ):
            yield World(server, enrolment, client, writer)


def request_of(secret: str, **changes: object) -> RedeemRequest:
    login, signing = SigningKey.generate(KeyKind.USER), SigningKey.generate(KeyKind.USER)
    proof = host.make_proof(secret, login, signing)
    return RedeemRequest(
        **({"secret": secret, "default_id": "a-1", "proof": proof} | changes)  # type: ignore[arg-type]
    )


async def test_of_fifty_hosts_with_one_token_one_is_let_in(world: World) -> None:
    token = await world.token()
    requests = [request_of(token.secret) for _ in range(50)]
    answers = await asyncio.gather(
        *(world.enrolment.redeem(request) for request in requests), return_exceptions=True
    )
    let_in = [answer for answer in answers if isinstance(answer, CredentialsReply)]
    assert len(let_in) == 1
    refused = [answer for answer in answers if isinstance(answer, RefusedError)]
    assert len(refused) == 49
    assert {error.code for error in refused} <= {403, 409}
    winner = requests[answers.index(let_in[0])]
    keys = await world.keys("a-1")
    assert keys is not None
    assert keys.login_key == winner.proof.login_key
    user = claims.decode(let_in[0].user_token)
    assert user.name == "a-1"
    assert user.subject == winner.proof.login_key
    assert 89 * DAY < user.expires_at - time.time() <= 90 * DAY


async def test_a_host_that_asks_again_before_it_is_answered_is_no_other_host(world: World) -> None:
    token = await world.token("a-1")
    request = request_of(token.secret)
    answers = await asyncio.gather(*(world.enrolment.redeem(request) for _ in range(5)))
    subject = request.proof.login_key
    assert {claims.decode(answer.user_token).subject for answer in answers} == {subject}


async def test_the_same_host_may_ask_again_and_no_other(world: World) -> None:
    token = await world.token("a-1")
    request = request_of(token.secret)
    first = await world.enrolment.redeem(request)
    again = await world.enrolment.redeem(request)
    assert claims.decode(again.user_token).subject == claims.decode(first.user_token).subject
    with pytest.raises(RefusedError, match="was used"):
        await world.enrolment.redeem(request_of(token.secret))


async def test_who_lets_hosts_in_is_in_the_audit_log(world: World) -> None:
    token = await world.token("a-1")
    request = request_of(token.secret)
    await world.enrolment.redeem(request)
    with pytest.raises(RefusedError):
        await world.enrolment.redeem(request_of(token.secret))
    async with connection.connected(
        world.server.settings_of("operator"),
        "reader",
        inbox_prefix=subjects.service_inbox("operator"),
    ) as reader:
        page = await audit.read_page(reader, 10)
    enrolled, made = page.entries
    assert (made.action, made.agent_id) == ("new-enrolment-token", "a-1")
    assert (enrolled.action, enrolled.agent_id) == ("enrol-host", "a-1")
    assert made.after is not None
    assert enrolled.actor == f"enrolment token {made.after['token']}"
    assert enrolled.after is not None
    assert enrolled.after["login_key"] == request.proof.login_key
    assert token.secret not in str(page.entries)


async def test_what_is_refused(world: World) -> None:
    token = await world.token("a-1")
    with pytest.raises(RefusedError, match="for another agent"):
        await world.enrolment.redeem(request_of(token.secret, agent_id="a-2"))
    with pytest.raises(RefusedError, match="not known"):
        await world.enrolment.redeem(request_of("SU" + "X" * 56))
    stolen = request_of("another secret than this").proof
    with pytest.raises(RefusedError, match="does not prove"):
        await world.enrolment.redeem(request_of(token.secret, proof=stolen))
    hash_of = enrolment_token.hash_of(token.secret)
    key = subjects.enrolment_key(hash_of)
    kept = await read(world.client, key, EnrolmentToken)
    assert kept is not None
    ended = msgspec.structs.replace(kept.value, expires_at=kept.value.expires_at.replace(year=2020))
    await commit(world.writer, [Write(key, encode(ended))])
    with pytest.raises(RefusedError, match="has expired"):
        await world.enrolment.redeem(request_of(token.secret))
    assert await world.keys("a-1") is None


async def test_a_free_token_never_takes_over_an_agent_that_exists(world: World) -> None:
    await world.enrolment.redeem(request_of((await world.token()).secret))
    with pytest.raises(RefusedError, match="--id a-1"):
        await world.enrolment.redeem(request_of((await world.token()).secret))
    before = await world.keys("a-1")
    assert before is not None
    await world.enrolment.redeem(request_of((await world.token("a-1")).secret))
    after = await world.keys("a-1")
    assert after is not None
    assert after.login_key != before.login_key


async def test_enrolling_again_closes_the_connection_of_the_earlier_host(
    world: World, tmp_path: Path
) -> None:
    login = SigningKey.generate(KeyKind.USER)
    token = await world.token("a-1")
    proof = host.make_proof(token.secret, login, SigningKey.generate(KeyKind.USER))
    reply = await world.enrolment.redeem(request_of(token.secret, proof=proof))
    creds = tmp_path / "a-1.creds"
    creds.write_text(credentials.to_text(reply.user_token, login))
    closed = asyncio.Event()

    async def on_closed() -> None:
        closed.set()

    async with joined(
        world.url, "_INBOX.a-1", user_credentials=str(creds), disconnected_cb=on_closed
    ):
        await world.enrolment.redeem(request_of((await world.token("a-1")).secret))
        async with asyncio.timeout(60):
            await closed.wait()
    with pytest.raises(Exception, match=r"(?i)authorization"):
        async with joined(world.url, "_INBOX.a-1", user_credentials=str(creds)):
            pass


async def test_credentials_are_renewed_for_the_recorded_keys_only(world: World) -> None:
    login, signing = SigningKey.generate(KeyKind.USER), SigningKey.generate(KeyKind.USER)
    own = RenewRequest(proof=host.make_proof("a-1", login, signing))
    first = await world.enrolment.renew("a-1", own)
    assert claims.decode(first.user_token).subject == login.public
    assert claims.decode((await world.enrolment.renew("a-1", own)).user_token).name == "a-1"
    other = SigningKey.generate(KeyKind.USER)
    for keys in ((other, signing), (login, other)):
        with pytest.raises(RefusedError, match="other keys"):
            await world.enrolment.renew("a-1", RenewRequest(proof=host.make_proof("a-1", *keys)))
    with pytest.raises(RefusedError, match="needs two"):
        await world.enrolment.renew("a-1", RenewRequest(proof=host.make_proof("a-1", login, login)))
    replayed = RenewRequest(proof=host.make_proof("a-2", login, signing))
    with pytest.raises(RefusedError, match="does not prove"):
        await world.enrolment.renew("a-1", replayed)


async def test_a_renewal_is_noted_where_it_makes_a_difference(world: World) -> None:
    """Or `creds list` and alerts would have every host's credentials expire after 90 days."""
    authority = world.server.identities.authority
    login, signing = SigningKey.generate(KeyKind.USER), SigningKey.generate(KeyKind.USER)
    now = int(time.time())
    enrolled = Issued(
        role="agent",
        name="a-1",
        public_key=login.public,
        issued_at=now - 89 * DAY,
        expires_at=now + DAY,
        signed_by=authority.signer_of("agent"),
    )
    authority.record(enrolled)
    own = RenewRequest(proof=host.make_proof("a-1", login, signing))

    async def renewed(lines: int) -> Issued:
        await world.enrolment.renew("a-1", own)
        text = (authority.folder / "issued.jsonl").read_text()
        assert text.count(login.public) == lines
        (user,) = (user for user in authority.issued() if user.role == "agent")
        return user

    user = await renewed(lines=2)
    assert user.expires_at > now + 80 * DAY
    assert user.issued_at == enrolled.issued_at
    assert await renewed(lines=2) == user
    authority.rotate("agent")
    assert authority.not_renewed("agent") == ["a-1"]
    await renewed(lines=3)
    assert authority.not_renewed("agent") == []


async def test_a_token_of_the_page_never_takes_the_place_of_an_agent(world: World) -> None:
    """The gateway, which faces the web, may ask for no other."""
    await world.enrolment.redeem(request_of((await world.token("a-1")).secret))
    with pytest.raises(RefusedError, match="--id a-1"):
        await world.enrolment.new_token(NewTokenRequest(agent_id="a-1"), new_only=True)
    reply = await world.enrolment.new_token(NewTokenRequest(agent_id="a-2"), new_only=True)
    await world.enrolment.redeem(request_of((await world.token("a-2")).secret))
    late = request_of(enrolment_token.parse(reply.token).secret)
    with pytest.raises(RefusedError, match="--id a-2"):
        await world.enrolment.redeem(late)


async def test_tokens_that_are_of_no_use_any_more_are_removed(world: World) -> None:
    """Also those of an earlier version, which have no time to live."""
    used = await world.token("a-1")
    await world.enrolment.redeem(request_of(used.secret))
    fresh = await world.token("a-2")
    for token in (used, fresh):
        key = subjects.enrolment_key(enrolment_token.hash_of(token.secret))
        assert 3600 <= await _time_to_live(world.client, key) <= 4200
    ended = []
    for number in range(3):
        key = subjects.enrolment_key(f"{number:064x}")
        old = EnrolmentToken(expires_at=datetime(2026, 1, 1, tzinfo=UTC), used_by="a-9")
        await commit(world.writer, [Write(key, encode(old))])
        ended.append(key)
    assert await world.enrolment.purge_spent() == 3
    assert await world.enrolment.purge_spent() == 0
    for key in ended:
        assert await read(world.client, key, EnrolmentToken) is None
    key = subjects.enrolment_key(enrolment_token.hash_of(fresh.secret))
    assert await read(world.client, key, EnrolmentToken) is not None


async def _time_to_live(client: connection.Client, key: str) -> int:
    """Seconds, as the last write of a key asked for."""
    verb = f"STREAM.MSG.GET.{subjects.BUCKET_STREAM}"
    answer = await jetstream_api.call(client, verb, {"last_by_subj": key})
    headers = base64.b64decode(answer["message"]["hdrs"]).decode()
    return int(headers.split("Nats-TTL: ")[1].split("s")[0])


async def test_agentd_renews_its_credentials_itself_before_they_expire(
    world: World, tmp_path: Path
) -> None:
    """Over the bus; the file is replaced whole and stays its owner's. It is never cut off."""
    login = SigningKey.generate(KeyKind.USER)
    now = int(time.time())
    authority = world.server.identities.authority
    token = authority.mint("agent", "a-1", login.public, now=now - 6, expires_at=now + 6)
    creds = tmp_path / "a-1.creds"
    credentials.write_secret(creds, credentials.to_text(token, login))
    identity = host.HostIdentity(creds, SigningKey.generate(KeyKind.USER))
    agent_settings = msgspec.structs.replace(world.server.settings, NATS_CREDS=str(creds))
    seen = creds.stat()
    async with connection.connected(
        agent_settings, "agentd:a-1", inbox_prefix=subjects.inbox_prefix("a-1")
    ) as client:
        announcement = KeyAnnouncement(client, agent_settings, identity, "a-1", lambda: None)
        async with background() as start, asyncio.timeout(60):
            start(announcement.run())
            while creds.stat().st_ino == seen.st_ino:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            # the server ends the connection by which it came, and it comes back with the new ones
            while client.stats["reconnects"] == 0:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            while not client.is_connected:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    renewed = claims.decode(credentials.read(creds).token)
    assert renewed.subject == login.public
    assert renewed.expires_at > now + 80 * DAY
    assert stat.S_IMODE(creds.stat().st_mode) == 0o600
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


async def test_credentials_begin_and_end_by_the_clock_of_the_bus(world: World) -> None:
    """With that of the service, one set back by 100 days gave hosts what had expired."""
    world.enrolment.bus_clock.note(100 * DAY)  # how far ahead the server's is
    there = time.time() + 100 * DAY
    token = await world.token("a-1")
    assert abs(claims.decode(token.user_token).expires_at - there - 3600) < 60
    reply = await world.enrolment.redeem(request_of(token.secret))
    assert abs(claims.decode(reply.user_token).expires_at - there - 90 * DAY) < 60


async def test_a_host_renews_in_time_whatever_its_own_clock_says(
    world: World, tmp_path: Path
) -> None:
    """One whose clock stood still let its credentials expire, and was shut out."""
    login = SigningKey.generate(KeyKind.USER)
    authority = world.server.identities.authority
    now = int(time.time())
    creds = tmp_path / "a-1.creds"

    async def renewed(days_later: int) -> bool:
        token = authority.mint("agent", "a-1", login.public, now=now, expires_at=now + 90 * DAY)
        credentials.write_secret(creds, credentials.to_text(token, login))
        identity = host.HostIdentity(creds, signing)
        world.enrolment.bus_clock.note(days_later * DAY)
        reply = await world.enrolment.renew("a-1", RenewRequest(proof=identity.proof("a-1")))
        return identity.is_renewal(reply.user_token)

    signing = SigningKey.generate(KeyKind.USER)
    assert [await renewed(days) for days in (-100, 0, 44, 46, 80)] == [False] * 3 + [True] * 2


def test_the_credentials_of_another_agent_are_refused(tmp_path: Path) -> None:
    """The bus let such a host in, and refused it everything, one subject after the other."""
    authority = LocalIdentities.open_or_create(tmp_path / "fleet").authority
    given = tmp_path / "other.creds"
    authority.issue("agent", "a-2", given)
    with pytest.raises(CredentialsError, match=r"of a-2, and this is agent a-1: set AGENT_ID=a-2"):
        host.HostIdentity.open(given, tmp_path, "a-1")
    given.rename(host.creds_path(tmp_path, "a-1"))
    with pytest.raises(CredentialsError, match=r"a-1\.creds: these are the credentials of a-2"):
        host.HostIdentity.open(None, tmp_path, "a-1")


async def test_a_bootstrap_user_may_redeem_and_nothing_else(world: World, tmp_path: Path) -> None:
    token = await world.token()
    creds = tmp_path / "bootstrap.creds"
    creds.write_text(credentials.to_text(token.user_token, token.key))
    async with joined(world.url, f"_INBOX.{token.name}", user_credentials=str(creds)) as client:
        assert await client.may_publish(subjects.REDEEM)
        assert not await client.may_publish(subjects.NEW_ENROLMENT)
        assert not await client.may_publish(subjects.NEW_HOST_ENROLMENT)
        assert not await client.may_publish(subjects.register("a-1"))
        assert not await client.may_subscribe(subjects.ping("a-1"))
        assert not await client.may_subscribe("_INBOX.>")


def test_an_authority_of_before_gets_the_roles_that_are_new(tmp_path: Path) -> None:
    identities = LocalIdentities.open_or_create(tmp_path)
    fleet = identities.authority.fleet
    older = {role: key for role, key in fleet.signing_keys.items() if role != "bootstrap"}
    path = tmp_path / "identity" / "fleet.json"
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(fleet, signing_keys=older)))
    opened = LocalIdentities.open_or_create(tmp_path)
    assert set(opened.authority.fleet.signing_keys) == set(fleet.signing_keys)


@pytest.mark.parametrize("text", ["", "x", "SUAB.eyJ", "a.b.c.d"])
def test_what_is_no_token_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(GpupingError) as refused:
        enrolment_token.parse(text)
    assert text == "" or text not in str(refused.value) or len(text) == 1


def test_no_token_shows_its_secret(tmp_path: Path) -> None:
    key = SigningKey.generate(KeyKind.USER)
    authority = LocalIdentities.open_or_create(tmp_path).authority
    user_token = authority.mint("bootstrap", "_enrol-x", key.public, now=0, expires_at=None)
    token = enrolment_token.parse(enrolment_token.to_text(key, user_token))
    assert key.seed not in repr(token)
    assert key.seed not in f"{token}"


async def test_a_revocation_outlives_the_death_and_the_restart_of_the_server(
    tmp_path: Path,
) -> None:
    chosen = settings.load({}, GPUPING_DATA_DIR=str(tmp_path / "data"))
    creds = tmp_path / "lost.creds"
    async with own_server.running(chosen, free_port()) as server:
        authority = server.identities.authority
        key = authority.issue("agent", "lost", creds)
        async with joined(server.settings.nats_url, "_INBOX.lost", user_credentials=str(creds)):
            pass
        authority.revoke([key])
        await account_updates.push(server.settings, authority)
        pid_file = tmp_path / "data" / "nats" / "nats-server.pid"
        pid = int(pid_file.read_text())
        os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(60):
            while int(pid_file.read_text() or pid) == pid:  # noqa: ASYNC110  # nothing tells
                await asyncio.sleep(0.05)
        await _is_refused(server.settings.nats_url, creds)
    async with own_server.running(chosen, free_port()) as server:
        await _is_refused(server.settings.nats_url, creds)


async def test_a_revoked_key_stays_void_whatever_the_time_of_its_token(
    world: World, tmp_path: Path
) -> None:
    """An enrolment service whose clock is ahead issues tokens of after the revocation."""
    authority = world.server.identities.authority
    key = SigningKey.generate(KeyKind.USER)
    authority.revoke([key.public])
    await account_updates.push(world.server.settings, authority)
    later = int(time.time()) + 1000
    token = authority.mint("agent", "lost", key.public, now=later, expires_at=None)
    creds = tmp_path / "later.creds"
    credentials.write_secret(creds, credentials.to_text(token, key))
    await _is_refused(world.url, creds)


async def _is_refused(url: str, creds: Path) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                async with joined(url, "_INBOX.lost", user_credentials=str(creds)):
                    raise AssertionError("a revoked user was let in")
            except OSError:
                await asyncio.sleep(0.05)  # it does not listen yet
            except nats.errors.Error as error:
                if "uthorization" in str(error):
                    return
                raise


async def test_a_host_that_asks_without_end_is_refused_and_others_are_answered(
    world: World, tmp_path: Path
) -> None:
    """A flood of one host costs the service no reads of the bucket and no signatures."""
    authority = world.server.identities.authority
    for agent_id in ("flood", "calm"):
        authority.issue("agent", agent_id, tmp_path / f"{agent_id}.creds")
    async with (
        joined(world.url, "_INBOX.flood", user_credentials=str(tmp_path / "flood.creds")) as flood,
        joined(world.url, "_INBOX.calm", user_credentials=str(tmp_path / "calm.creds")) as calm,
    ):
        codes = Counter()
        for _ in range(100):
            reply = await flood.nc.request(subjects.renew("flood"), b"{}", timeout=10)
            codes[(reply.headers or {}).get("Nats-Service-Error-Code")] += 1
        assert codes["429"] > 50
        reply = await calm.nc.request(subjects.renew("calm"), b"{}", timeout=10)
        assert (reply.headers or {})["Nats-Service-Error-Code"] == "400"


async def test_a_host_that_is_told_to_stop_while_it_enrols_does_not_go_on(tmp_path: Path) -> None:
    """It started the agent, and with --install the service, although nobody had let it in."""
    authority = LocalIdentities.open_or_create(tmp_path / "fleet").authority
    key = SigningKey.generate(KeyKind.USER)
    now = int(time.time())
    user_token = authority.mint("bootstrap", "_t1", key.public, now=now, expires_at=now + 600)
    token = enrolment_token.to_text(key, user_token)
    asked = asyncio.Event()

    async def say_nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await writer.wait_closed()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gpuping", "agentd", "--data-dir", str(tmp_path / "host")),
        *("--enroll", f"{token}@127.0.0.1:{port}"),
        env=os.environ | {"AGENT_ID": "late", "AGENT_SCENARIO": "healthy", "AGENT_HTTP_PORT": "0"},
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(60):
            await asked.wait()
            process.send_signal(signal.SIGTERM)
            _, errors = await process.communicate()
        assert process.returncode == 1
        assert errors.decode().splitlines()[-1] == "gpuping: ended by a signal before it was done"
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        server.close()
