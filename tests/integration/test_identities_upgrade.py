"""A data dir of before identities is taken over by the first start, and given back unharmed."""

import asyncio
import tarfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import nats
import pytest

import agentd.service
import scheduler.service
from agentd.probe_selection import open_probe
from bus import runner, settings
from bus.contract import subjects
from bus.contract.messages import AgentEntry, AgentState
from bus.errors import GpupingError, SettingsError
from bus.identity import claims, credentials
from bus.identity.authority import UNSIGNED_DAYS
from bus.identity.keys import KeyKind, SigningKey
from bus.identity.local import LocalIdentities
from bus.transport import embedded_server, jetstream_api, layout
from bus.transport.bucket import read
from bus.transport.connection import Client, connected
from bus.transport.embedded_server import find_binary
from gpuping.client import own_server
from gpuping.commands.operate import leaf, store, unsigned
from gpuping.enrolment import service as enrolment_service
from tests.ports import free_port, free_ports
from tests.waiting import until

STORED = Path(__file__).parents[1] / "data" / "stored_data_dir" / "data_dir.tar.xz"

QUICK = {
    "PING_BASE_INTERVAL_MINUTES": "0.02",
    "PING_MAX_INTERVAL_HOURS": "0.001",
    "PING_RESPONSE_TIMEOUT_SECONDS": "2",
    "AGENT_GPU_CHECK_INTERVAL_SECONDS": "0.2",
}


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    with tarfile.open(STORED) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "data"


@asynccontextmanager
async def before_identities(data_dir: Path) -> AsyncIterator[Client]:
    """The server as an earlier version configured it."""
    async with embedded_server.running(data_dir, free_port()) as server:
        chosen = settings.load({}, NATS_URL=server.url)
        async with connected(chosen, "test") as client:
            yield client


async def kept(client: Client) -> dict[str, object]:
    """All that counts: the history's end, and each entry and state. (Timers may fire meanwhile.)"""
    history = await jetstream_api.call(client, "STREAM.INFO.GPUPING_HISTORY")
    found: dict[str, object] = {
        "messages": history["state"]["messages"],
        "last_seq": history["state"]["last_seq"],
    }
    for pattern in (subjects.agent_key("*"), subjects.state_key("*")):
        asked = {"subjects_filter": pattern}
        info = await jetstream_api.call(client, "STREAM.INFO.KV_gpuping", asked)
        for key in info["state"]["subjects"]:
            body = {"last_by_subj": key}
            answer = await jetstream_api.call(client, "STREAM.MSG.GET.KV_gpuping", body)
            found[key] = (answer["message"]["seq"], answer["message"]["data"])
    return found


async def test_nothing_is_lost_there_and_back(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with before_identities(data_dir) as client:
        before = await kept(client)
    assert len(before) > 8
    chosen = settings.load({}, GPUPING_DATA_DIR=str(data_dir))
    async with own_server.running(chosen, free_port()) as server:
        assert server.settings.GPUPING_REQUIRE_SIGNED is False, "its hosts have no keys yet"
        until = server.settings.GPUPING_UNSIGNED_UNTIL
        assert until is not None
        days = (until - datetime.now(UTC)).total_seconds() / 86_400
        assert UNSIGNED_DAYS - 1 < days <= UNSIGNED_DAYS
        operator = server.settings_of("operator")
        async with connected(operator, "test", inbox_prefix="_INBOX._operator") as client:
            after = await kept(client)
    assert after == before
    assert unsigned.unsigned(until="2026-12-24", data_dir=data_dir) == runner.DONE
    assert "count until 2026-12-24 00:00 UTC" in capsys.readouterr().out
    assert unsigned.unsigned(end=True, data_dir=data_dir) == runner.DONE
    assert "every report must be signed" in capsys.readouterr().out
    assert store.roll_back(data_dir=data_dir) == runner.DONE
    async with before_identities(data_dir) as client:
        assert await kept(client) == before

    # streams of both: only a person can tell which are right
    accounts = embedded_server.accounts_folder(data_dir)
    account = server.identities.authority.fleet.account
    (accounts / account / "streams" / "KV_gpuping").mkdir(parents=True)
    with pytest.raises(GpupingError, match="more than one account"):
        async with own_server.running(chosen, free_port()):
            pass
    with pytest.raises(GpupingError, match="more than one account"):
        store.roll_back(data_dir=data_dir)
    with pytest.raises(GpupingError, match="more than one account"):
        store.take_over(data_dir=data_dir)


def test_credentials_of_another_account_are_made_anew(tmp_path: Path) -> None:
    """An earlier version, started again in between, had all services in the fleet's account."""
    identities = LocalIdentities.open_or_create(tmp_path)
    path = identities.service("storage")
    authority = identities.authority
    in_fleet = {"type": "user", "issuer_account": authority.fleet.account}
    signer = SigningKey.from_seed(
        credentials.read_secret(authority.folder / "signing/storage.seed")
    )
    user = SigningKey.generate(KeyKind.USER)
    token = claims.encode(signer, user.public, "_storage", in_fleet, now=int(time.time()))
    credentials.write_secret(path, credentials.to_text(token, user))
    remade = claims.decode(credentials.read(identities.service("storage")).token)
    assert remade.nats["issuer_account"] == authority.account_of("storage")
    assert identities.keep_valid("storage", "_storage", path) is False


async def test_a_host_that_got_credentials_before_the_upgrade_goes_on_over_it(
    tmp_path: Path,
) -> None:
    """docs/operations.md: identities first, then credentials to the hosts, then the upgrade.

    A server without identities does not ask for the credentials that a client brings.
    """
    port = free_port()
    identities = LocalIdentities.open_or_create(tmp_path)
    chosen = settings.load({}, GPUPING_DATA_DIR=str(tmp_path), **QUICK)
    on_bus = msgspec.structs.replace(chosen, NATS_URL=f"nats://127.0.0.1:{port}")
    of_host = msgspec.structs.replace(on_bus, NATS_CREDS=str(identities.agent("gpu-1")))
    probe = open_probe(of_host, "gpu-1", "healthy")
    async with agentd.service.running(
        of_host, agent_id="gpu-1", probe=probe, state_dir=tmp_path / "gpu-1"
    ):
        async with (
            embedded_server.running(tmp_path, port),
            connected(on_bus, "layout") as client,
        ):
            await layout.ensure(client, on_bus, grow=True)
            async with scheduler.service.running(on_bus):
                before = await answered_after(client, 0)
        async with own_server.running(chosen, port) as server:
            assert server.settings.GPUPING_REQUIRE_SIGNED is False
            authority = server.identities.authority
            async with (
                enrolment_service.running(server.settings_of("enrolment"), authority),
                scheduler.service.running(server.settings_of("scheduler")),
                connected(
                    server.settings_of("operator"), "test", inbox_prefix="_INBOX._operator"
                ) as client,
            ):
                after = await answered_after(client, before.ping_seq, is_signed=True)
                entry = await read(client, subjects.agent_key("gpu-1"), AgentEntry)
    assert after.ping_seq > before.ping_seq
    assert entry is not None
    assert entry.value.signing_key is not None


async def test_a_host_without_credentials_goes_on_through_a_server_of_its_own_until_it_ends(
    tmp_path: Path,
) -> None:
    """It connects where it did before; `creds leaf --without-credentials` made that server."""
    leaf_port, old_port = free_ports(2)
    chosen = settings.load(
        {}, GPUPING_DATA_DIR=str(tmp_path / "data"), NATS_LEAF_PORT=leaf_port, **QUICK
    )
    of_host = settings.load(
        {}, GPUPING_DATA_DIR=str(tmp_path), NATS_URL=f"nats://127.0.0.1:{old_port}", **QUICK
    )
    authority = LocalIdentities.open_or_create(chosen.data_dir).authority
    words = {"hub": f"nats-leaf://127.0.0.1:{leaf_port}", "port": old_port}
    words |= {"data_dir": chosen.data_dir, "without_credentials": True}
    folder = tmp_path / "before"
    with pytest.raises(SettingsError, match="this fleet has none that ends"):
        leaf.leaf("before", agents="gpu-1", output=folder, **words)  # type: ignore[arg-type]
    authority.accept_unsigned(until=int(time.time()) + 3600)
    leaf.leaf("before", agents="gpu-1", output=folder, **words)  # type: ignore[arg-type]
    ends = claims.decode(credentials.read(folder / "leaf.creds").token).expires_at
    assert ends == LocalIdentities.open(chosen.data_dir).authority.fleet.unsigned_until
    probe = open_probe(of_host, "gpu-1", "healthy")
    async with (
        own_server.running(chosen, free_port()) as server,
        started(folder / "leaf.conf"),
        agentd.service.running(
            of_host, agent_id="gpu-1", probe=probe, state_dir=tmp_path / "gpu-1"
        ),
        scheduler.service.running(server.settings_of("scheduler")),
        connected(
            server.settings_of("operator"), "test", inbox_prefix="_INBOX._operator"
        ) as client,
    ):
        before = await answered_after(client, 0)
        again = await answered_after(client, before.ping_seq)
        assert again.report_hash is None
        # The same server believes nobody in the name of another host, and nobody as a service.
        refused = []

        async def on_error(error: Exception) -> None:
            if "permissions violation" in str(error):
                refused.append(str(error))

        stranger = await nats.connect(of_host.nats_url, error_cb=on_error)
        for subject in (subjects.ping("gpu-2"), "gpuping.>", "_INBOX.>", "$KV.>"):
            await stranger.subscribe(subject)
        for subject in (subjects.register("gpu-2"), "_INBOX._scheduler.x", "$KV.gpuping.state.x"):
            await stranger.publish(subject, b"{}")
        await until(lambda: len(refused) == 7)
        await stranger.close()


@asynccontextmanager
async def started(config: Path) -> AsyncIterator[None]:
    """A nats-server with this configuration, for the length of a block."""
    server = await asyncio.create_subprocess_exec(
        find_binary(), "-c", config, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        yield
    finally:
        server.terminate()
        await server.wait()


async def answered_after(client: Client, number: int, *, is_signed: bool = False) -> AgentState:
    """The host's state after a ping later than `number` was answered."""
    async with asyncio.timeout(90):
        while True:
            state = await read(client, subjects.state_key("gpu-1"), AgentState)
            if state is not None and state.value.ping_seq > number:
                found = state.value
                if found.last.outcome == "answered" and (
                    found.report_hash is not None or not is_signed
                ):
                    return found
            await asyncio.sleep(0.05)  # the bucket is asked, and tells nobody
