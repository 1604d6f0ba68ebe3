"""What docs/security.md has an operator do when a key is lost or stolen, on a real server."""

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import nats.errors
import pytest
from structlog.testing import capture_logs

from agentd.messaging.enrolment import EnrolmentError, KeyAnnouncement, enroll
from bus import settings
from bus.background import background
from bus.contract import subjects
from bus.contract.enrolment import (
    EnrolmentKept,
    EnrolmentToken,
    HostKeys,
    KeepEnrolment,
    KeptHost,
    KeptToken,
    NewTokenRequest,
    RedeemRequest,
)
from bus.identity import claims, credentials, enrolment_token, host, local
from bus.identity.authority import Authority, AuthorityError
from bus.identity.credentials import CredentialsError
from bus.identity.keys import KeyKind, SigningKey
from bus.identity.tls import certificates
from bus.settings import Settings
from bus.transport import account_updates, connection
from bus.transport.bucket import read
from bus.transport.micro_services import ask
from gpuping.client import own_server
from gpuping.client.own_server import OwnServer
from gpuping.enrolment.service import Enrolment, running
from tests.identity import joined, keeping_enrolments
from tests.ports import free_port


class Host:
    """A GPU host's keys, and its request to join."""

    def __init__(self, secret: str, agent_id: str) -> None:
        self.login = SigningKey.generate(KeyKind.USER)
        self.signing = SigningKey.generate(KeyKind.USER)
        proof = host.make_proof(secret, self.login, self.signing)
        self.request = RedeemRequest(secret=secret, default_id=agent_id, proof=proof)


async def invited(enrolment: Enrolment, agent_id: str) -> Host:
    reply = await enrolment.new_token(NewTokenRequest(agent_id=agent_id))
    return Host(enrolment_token.parse(reply.token).secret, agent_id)


@asynccontextmanager
async def enrolling(server: OwnServer, authority: Authority) -> AsyncIterator[Enrolment]:
    async with (
        keeping_enrolments(server.settings_of("scheduler")),
        running(server.settings_of("enrolment"), authority) as enrolment,
    ):
        yield enrolment


def settings_in(folder: Path) -> Settings:
    return settings.load({}, GPUPING_DATA_DIR=str(folder))


async def test_a_host_that_joins_anew_voids_all_earlier_logins(tmp_path: Path) -> None:
    """Those of an operator's hand too, and though the service was killed before it came to that."""
    async with own_server.running(settings_in(tmp_path / "data"), free_port()) as server:
        authority = server.identities.authority
        by_hand = authority.issue("agent", "a-1", tmp_path / "a-1.creds")
        async with enrolling(server, authority) as enrolment:
            first = await invited(enrolment, "a-1")
            await enrolment.redeem(first.request)
            assert set(authority.fleet.revoked) == {by_hand}

            second = await invited(enrolment, "a-1")
            await _kept_and_then_killed(server, second, "a-1")
            assert set(authority.fleet.revoked) == {by_hand}
            await enrolment.redeem(second.request)  # the host tries again
        authority.reload()
        assert set(authority.fleet.revoked) == {by_hand, first.login.public}


async def _kept_and_then_killed(server: OwnServer, guest: Host, agent_id: str) -> None:
    """What the service has the scheduler write, and no more."""
    token_hash = enrolment_token.hash_of(guest.request.secret)
    async with connection.connected(
        server.settings_of("enrolment"), "test", inbox_prefix=subjects.service_inbox("enrolment")
    ) as client:
        token = await read(client, subjects.enrolment_key(token_hash), EnrolmentToken)
        before = await read(client, subjects.host_key(agent_id), HostKeys)
        assert token is not None
        assert before is not None
        used = EnrolmentToken(
            expires_at=token.value.expires_at, agent_id=agent_id, used_by=agent_id
        )
        keys = HostKeys(
            agent_id=agent_id,
            login_key=guest.login.public,
            signing_key=guest.signing.public,
            enrolled_at=before.value.enrolled_at,
            token_hash=token_hash,
        )
        kept = KeepEnrolment(
            token=KeptToken(token_hash=token_hash, value=used, revision=token.revision),
            host=KeptHost(keys=keys, revision=before.revision),
        )
        await ask(client, subjects.KEEP_ENROLMENT, kept, EnrolmentKept, who="the scheduler")


async def test_a_rotation_of_the_agents_key_reaches_a_host_when_it_asks(tmp_path: Path) -> None:
    """And not after half of the time for which its credentials are good."""
    async with own_server.running(settings_in(tmp_path / "data"), free_port()) as server:
        authority = server.identities.authority
        path = tmp_path / "a-1.creds"
        authority.issue("agent", "a-1", path)
        identity = host.HostIdentity(path, SigningKey.generate(KeyKind.USER))
        authority.rotate("agent")
        await account_updates.push(server.settings, authority)
        agent_settings = settings.load({}, NATS_URL=server.settings.nats_url, NATS_CREDS=str(path))
        async with (
            enrolling(server, authority),
            connection.connected(
                agent_settings, "agentd:a-1", inbox_prefix=subjects.inbox_prefix("a-1")
            ) as client,
            background() as start,
            asyncio.timeout(60),
        ):
            announcement = KeyAnnouncement(client, agent_settings, identity, "a-1", lambda: None)
            start(announcement.run())
            await announcement.first_attempt.wait()
        token = claims.decode(credentials.read(path).token)
        assert token.issuer == authority.fleet.signing_keys["agent"]
        assert authority.not_renewed("agent") == []


async def test_credentials_that_the_bus_does_not_believe_are_not_taken(tmp_path: Path) -> None:
    """Of an enrolment service whose data dir was put back to before a rotation, or the like."""
    async with own_server.running(settings_in(tmp_path / "data"), free_port()) as server:
        authority = server.identities.authority
        path = tmp_path / "a-1.creds"
        authority.issue("agent", "a-1", path)
        before = path.read_text()
        identity = host.HostIdentity(path, SigningKey.generate(KeyKind.USER))
        authority.rotate("agent")  # and the server is not told
        agent_settings = settings.load({}, NATS_URL=server.settings.nats_url, NATS_CREDS=str(path))
        chosen = settings.load({}, GPUPING_DATA_DIR=str(tmp_path / "host"))
        with capture_logs() as logged:
            async with (
                enrolling(server, authority) as enrolment,
                connection.connected(
                    agent_settings, "agentd:a-1", inbox_prefix=subjects.inbox_prefix("a-1")
                ) as client,
                background() as start,
                asyncio.timeout(60),
            ):
                announcement = KeyAnnouncement(
                    client, agent_settings, identity, "a-1", lambda: None
                )
                start(announcement.run())
                await announcement.first_attempt.wait()
                reply = await enrolment.new_token(NewTokenRequest(agent_id="a-2"))
                word = f"{reply.token}@{reply.address}"
                for _ in range(2):  # the same host may ask again
                    with pytest.raises(EnrolmentError, match="does not believe what its enrol"):
                        await enroll(chosen, word)
                await account_updates.push(server.settings, authority)
                assert (await enroll(chosen, word)).agent_id == "a-2"
        assert path.read_text() == before
        assert "new_credentials_refused" in [entry["event"] for entry in logged]
        assert not list(tmp_path.rglob("*.trial"))


def test_every_key_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """Those that nothing needs yet as well; and credentials, which were silently made anew."""
    identities = local.LocalIdentities.open_or_create(tmp_path)
    identities.service("gateway")
    identities.agent("a-1")
    folder = identities.authority.folder
    certificates.make(identities.tls_files, ["localhost"])
    secrets = [path for path in folder.rglob("*") if path.suffix in {".seed", ".creds", ".key"}]
    assert len(secrets) > 18
    for path in secrets:
        path.chmod(0o640)
        with pytest.raises(CredentialsError, match=f"chmod 600 {path}$"):
            local.LocalIdentities.open(tmp_path)
        path.chmod(0o600)
    folder.joinpath("account.seed").chmod(0o604)
    folder.joinpath("users/gateway.creds").chmod(0o604)
    with pytest.raises(CredentialsError, match=r"chmod 600 \S+account.seed \S+gateway.creds$"):
        local.LocalIdentities.open(tmp_path)
    folder.joinpath("account.seed").chmod(0o600)
    with pytest.raises(CredentialsError, match=r"gateway.creds$"):
        identities.service("gateway")


@pytest.mark.slow
async def test_an_expired_token_is_called_that_on_the_host(tmp_path: Path) -> None:
    async with own_server.running(settings_in(tmp_path / "data"), free_port()) as server:
        key = SigningKey.generate(KeyKind.USER)
        now = int(time.time())
        user = server.identities.authority.mint(
            "bootstrap", "_enrol-a", key.public, now=now - 7200, expires_at=now - 3600
        )
        address = server.settings.nats_url.removeprefix("nats://")
        word = f"{enrolment_token.to_text(key, user, None)}@{address}"
        chosen = settings.load({}, GPUPING_DATA_DIR=str(tmp_path / "host"))
        with pytest.raises(EnrolmentError, match=r"It expired at .* UTC, by this host's clock"):
            await enroll(chosen, word)


async def test_without_the_operators_key_the_bus_starts_and_nothing_is_changed(
    tmp_path: Path,
) -> None:
    chosen = settings_in(tmp_path / "data")
    async with own_server.running(chosen, free_port()) as server:
        agent = server.identities.authority.issue("agent", "a-1", tmp_path / "a-1.creds")
        key = server.identities.authority.folder / "operator.seed"
    kept = key.rename(tmp_path / "operator.seed")
    async with own_server.running(chosen, free_port()) as server:
        authority = server.identities.authority
        for role in ("operator", "gateway"):
            inbox = subjects.service_inbox(role)
            named = server.settings_of(role)  # type: ignore[arg-type]
            async with connection.connected(named, role, inbox_prefix=inbox) as client:
                assert client.is_connected
        before = authority.fleet
        for change in (
            lambda: authority.revoke([agent]),
            lambda: authority.rotate("gateway"),
            lambda: authority.retire("gateway"),
        ):
            with pytest.raises(AuthorityError, match="nothing was changed: put it back"):
                change()
        assert Authority.load(authority.folder).fleet == before
    kept.rename(key)
    async with own_server.running(chosen, free_port()) as server:
        server.identities.authority.revoke([agent])


async def test_a_scheduler_cannot_undo_a_revocation_and_its_rotation_ends_all_that_it_had(
    tmp_path: Path,
) -> None:
    """A server takes any account that the operator has signed, an earlier one as well."""
    async with own_server.running(settings_in(tmp_path / "data"), free_port()) as server:
        authority = server.identities.authority
        earlier = authority.account_token()
        agent = authority.issue("agent", "a-1", tmp_path / "a-1.creds")
        authority.revoke([agent])
        await account_updates.push(server.settings, authority)
        given = server.settings_of("scheduler").NATS_SYSTEM_CREDS
        assert given is not None
        stolen = tmp_path / "stolen.creds"
        credentials.write_secret(stolen, Path(given).read_text())
        async with joined(
            server.settings.nats_url, "_INBOX", user_credentials=str(stolen)
        ) as thief:
            with pytest.raises((TimeoutError, nats.errors.Error)):
                await thief.nc.request(subjects.CLAIMS_UPDATE, earlier.encode(), timeout=2)
        with pytest.raises((OSError, nats.errors.Error)):
            async with joined(
                server.settings.nats_url,
                "_INBOX.a-1",
                user_credentials=str(tmp_path / "a-1.creds"),
            ):
                pass

        authority.rotate("scheduler")
        await account_updates.push(server.settings, authority, ["scheduler"])
        async with joined(server.settings.nats_url, "_INBOX", user_credentials=str(stolen)):
            pass
        authority.retire("scheduler")
        await account_updates.push(server.settings, authority, ["scheduler"])
        with pytest.raises((OSError, nats.errors.Error)):
            async with joined(server.settings.nats_url, "_INBOX", user_credentials=str(stolen)):
                pass
        async with joined(server.settings.nats_url, "_INBOX", user_credentials=given):
            pass
        await account_updates.push(server.settings, authority)


@asynccontextmanager
async def apart(tmp_path: Path) -> AsyncIterator[tuple[OwnServer, Enrolment, Path]]:
    """An enrolment service without the authority's keys, as in compose and under systemd."""
    async with own_server.running(settings_in(tmp_path / "data"), free_port()) as server:
        authority = server.identities.authority
        folder = tmp_path / "enrolment" / "identity"
        (folder / "signing").mkdir(parents=True)
        _copy_keys(authority, folder)
        async with enrolling(server, Authority.load(folder)) as enrolment:
            yield server, enrolment, folder


def _copy_keys(authority: Authority, folder: Path) -> None:
    for name in ("fleet.json", "signing/agent.seed", "signing/bootstrap.seed"):
        shutil.copy(authority.folder / name, folder / name)


async def creds(server: OwnServer, *words: str) -> subprocess.CompletedProcess[str]:
    """`gpuping creds` where the authority's keys are, as an operator types it."""
    named = {
        "NATS_URL": server.settings.nats_url,
        "NATS_CREDS": str(server.identities.service("operator")),
    }
    command = [sys.executable, "-m", "gpuping", *words]
    command += ["--data-dir", str(server.identities.authority.folder.parent)]
    return await asyncio.to_thread(
        subprocess.run,
        command,
        env=os.environ | named,
        capture_output=True,
        text=True,
        check=False,
    )


async def test_hosts_of_an_enrolment_service_apart_are_known_to_the_authority(
    tmp_path: Path,
) -> None:
    """`--retire` counted none of them, and shut all of them out without a word."""
    async with apart(tmp_path) as (server, enrolment, folder):
        authority = server.identities.authority
        for agent_id in ("a-1", "a-2"):
            guest = await invited(enrolment, agent_id)
            await enrolment.redeem(guest.request)
        listed = await creds(server, "creds", "list", "--json")
        assert '"a-1"' in listed.stdout, listed.stderr
        assert '"a-2"' in listed.stdout

        assert (await creds(server, "creds", "rotate", "agent")).returncode == 0
        refused = await creds(server, "creds", "rotate", "agent", "--retire")
        assert refused.returncode == 1
        assert "2 of agent would be shut out" in refused.stderr
        _copy_keys(authority, folder)
        again = await invited(enrolment, "a-2")
        await enrolment.redeem(again.request)
        refused = await creds(server, "creds", "rotate", "agent", "--retire")
        assert "1 of agent would be shut out" in refused.stderr
        assert "a-1." in refused.stderr

        # both keys of a-2, of which the registry knows one
        revoked = await creds(server, "creds", "revoke", "a-2")
        assert "revoked 2 credentials of a-2" in revoked.stdout, revoked.stderr
    unknown = await creds(server, "creds", "rotate", "agent", "--retire")
    assert unknown.returncode == 1
    authority.reload()
    assert authority.fleet.retiring


async def test_a_token_for_an_agent_that_exists_says_what_becomes_of_its_host(
    tmp_path: Path,
) -> None:
    async with apart(tmp_path) as (server, enrolment, _):
        fresh = await creds(server, "enroll", "new", "--id", "a-1")
        assert "exists" not in fresh.stderr
        guest = await invited(enrolment, "a-1")
        await enrolment.redeem(guest.request)
        said = await creds(server, "enroll", "new", "--id", "a-1")
        assert said.stdout.startswith("gpuping agentd --enroll ")
        assert "a-1 exists" in said.stderr
        assert "`gpuping enroll new --id a-1 --revoke` voids them" in said.stderr
        both = await creds(server, "enroll", "new", "--id", "a-1", "--revoke")
        assert "revoked 1 credentials of a-1" in both.stderr
        assert "exists" not in both.stderr
