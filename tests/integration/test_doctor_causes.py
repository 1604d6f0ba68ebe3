"""`gpuping doctor` on a bus where much is wrong: each thing is found by its own cause.

The clocks of schedulers have tests/integration/test_scheduler_clocks.py, and the edge of the stream
tests/unit/test_stream_edge.py.
"""

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from bus import settings
from bus.client.fleet_client import FleetClient
from bus.clock import utc_now
from bus.contract.questions import ListRequest, RegisterRequest
from bus.identity import credentials
from bus.identity.keys import KeyKind, SigningKey
from bus.identity.local import LocalIdentities
from bus.identity.server.config import identity_config
from bus.identity.server.quoting import quoted
from bus.settings import Settings
from bus.transport import connection, layout
from bus.transport.embedded_server import find_binary
from gpuping.client.own_server import OwnServer
from gpuping.doctor.examination import examine
from gpuping.output.findings import Finding
from scheduler.service import Scheduler, running
from storage import service as storage_service
from tests.ports import free_port

EXPIRES_IN_DAYS = 10


@pytest.fixture
async def careless(tmp_path: Path) -> AsyncIterator[OwnServer]:
    """A nats-server that acknowledges before a write is on disk, as its default is."""
    identities = LocalIdentities.open_or_create(tmp_path / "data")
    port = free_port()
    configuration = tmp_path / "nats.conf"
    configuration.write_text(
        f"host: 127.0.0.1\nport: {port}\nserver_name: careless\n"
        f"jetstream {{ store_dir: {quoted(tmp_path / 'store')} }}\n"
        + identity_config(identities.authority, identities.resolver_folder, anonymous_looks=False)
    )
    process = await asyncio.create_subprocess_exec(
        find_binary(), "-c", configuration, stderr=subprocess.DEVNULL
    )
    chosen = settings.load(
        {},
        NATS_URL=f"nats://127.0.0.1:{port}",
        GPUPING_DATA_DIR=str(tmp_path / "data"),
        PING_BASE_INTERVAL_MINUTES=0.02,
        PING_RESPONSE_TIMEOUT_SECONDS=0.5,
    )
    server = OwnServer(chosen, identities)
    try:
        async with connection.connected(
            server.settings_of("layout"), "layout", inbox_prefix="_INBOX._layout"
        ) as client:
            await layout.ensure(client, chosen, grow=True)
        yield server
    finally:
        process.terminate()
        await process.wait()


def write_credentials_that_expire_soon(server: OwnServer) -> None:
    key = SigningKey.generate(KeyKind.USER)
    now = int(time.time())
    token = server.identities.authority.mint(
        "storage", "_storage", key.public, now=now, expires_at=now + EXPIRES_IN_DAYS * 86_400
    )
    folder = server.settings.data_dir / "identity"
    credentials.write_secret(folder / "replica.creds", credentials.to_text(token, key))


async def findings_of(chosen: Settings) -> dict[str, Finding]:
    return {finding.check: finding for finding in await examine(chosen)}


async def until_known(scheduler: Scheduler, operator: Settings) -> None:
    """The scheduler has heard the server and its peer, and a host has missed its ping."""
    async with (
        connection.connected(operator, "operator", inbox_prefix="_INBOX._operator") as client,
        asyncio.timeout(60),
    ):
        while not (  # noqa: ASYNC110  # what a scheduler knows can only be asked
            scheduler.stats().bus_servers
            and scheduler.stats().differing_policies
            and (await FleetClient(client, 2.0).agents(ListRequest())).agents[0].missed_pings
        ):
            await asyncio.sleep(0.05)


async def test_each_cause_is_found(careless: OwnServer):
    write_credentials_that_expire_soon(careless)
    scheduler_settings = careless.settings_of("scheduler")
    strict = replace(scheduler_settings, PING_UPTIME_THRESHOLD=99.9)
    operator = careless.settings_of("operator")
    async with (
        running(scheduler_settings) as scheduler,
        running(strict),
        storage_service.running(careless.settings_of("storage")),
    ):
        await scheduler.registry.enrol("silent", RegisterRequest(), utc_now())
        await until_known(scheduler, operator)
        found = await findings_of(replace(operator, GPUPING_REPLICAS=3))
        bad = {name: finding.detail for name, finding in found.items() if finding.level != "ok"}
        assert "judge by different rules" in bad["policies"]
        assert "careless: a power cut loses outcomes" in bad["bus disks"]
        assert bad["gateways"] == "no gateway is connected to the bus"
        assert "silent (no_responders)" in bad["hosts"]
        assert "replicas" in bad["streams"]
        assert f"replica.creds in {EXPIRES_IN_DAYS} days" in bad["credentials"]
        for name in ("policies", "bus disks", "gateways", "hosts", "streams", "credentials"):
            assert found[name].level == "warning", name
            assert found[name].advice, name
        assert found["storages"].level == "ok"


async def test_a_bus_that_refuses_is_one_finding_of_many(careless: OwnServer, tmp_path: Path):
    """Doctor ended at it, and told nothing of the disk, the clock and the GPUs."""
    stranger = replace(careless.settings, NATS_CREDS=None, GPUPING_DATA_DIR=str(tmp_path / "other"))
    found = await findings_of(stranger)
    assert found["bus"].level == "failure"
    assert "refuses these credentials" in found["bus"].detail
    assert found["bus"].advice
    assert "NATS_CREDS" in found["bus"].advice
    assert {"disk", "clock", "gpu"} <= set(found)
