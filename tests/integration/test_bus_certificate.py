"""When the certificate of the bus expires, as the alerts service sees it from outside."""

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from bus import settings
from bus.errors import BusError
from bus.identity.tls import certificates
from bus.identity.tls.files import TlsFiles
from bus.settings import Settings
from bus.transport.embedded_server import find_binary
from gpuping.alerts.detect import machine
from gpuping.client.bus_connection import connect_to_running
from tests.ports import free_port


@pytest.fixture
async def of_a_fleet(tmp_path: Path) -> AsyncIterator[Settings]:
    """A bus with the certificate that `gpuping creds init --tls-names localhost` makes."""
    files = TlsFiles(tmp_path / "tls")
    certificates.make(files, ["localhost"])
    port = free_port()
    configuration = tmp_path / "nats.conf"
    configuration.write_text(f"host: 127.0.0.1\nport: {port}\n{files.server_config()}")
    server = await asyncio.create_subprocess_exec(
        find_binary(), "-c", configuration, stderr=subprocess.DEVNULL
    )
    try:
        yield settings.load(
            {},
            NATS_URL=f"tls://localhost:{port}",
            NATS_CA=str(files.authority),
            GPUPING_DATA_DIR=str(tmp_path / "data"),
        )
    finally:
        server.terminate()
        await server.wait()


async def until_seen(chosen: Settings) -> machine.Expiry:
    (address,) = machine.addresses(chosen, ())
    async with asyncio.timeout(60):
        while True:
            seen = await asyncio.to_thread(machine.certificate_expiry, address)
            if seen is not None:
                return seen
            await asyncio.sleep(0.05)


async def test_a_certificate_of_the_fleets_own_authority_is_believed(of_a_fleet: Settings):
    """It was refused, so that every fleet with such a certificate had a critical alert."""
    seen = await until_seen(of_a_fleet)
    assert seen.problem is None
    assert seen.at is not None
    assert seen.at.timestamp() > time.time()


async def test_one_of_a_stranger_is_a_problem(of_a_fleet: Settings):
    seen = await until_seen(replace(of_a_fleet, NATS_CA=None))
    assert seen.problem is not None
    assert "self-signed" in seen.problem


async def test_who_does_not_believe_it_is_told_so_and_not_that_nothing_runs(of_a_fleet: Settings):
    await until_seen(of_a_fleet)
    told = (
        r"certificate of the bus at tls://localhost:\d+ is not believed: .*NATS_CA names the file"
    )
    with pytest.raises(BusError, match=told):
        async with connect_to_running(replace(of_a_fleet, NATS_CA=None)):
            pass
