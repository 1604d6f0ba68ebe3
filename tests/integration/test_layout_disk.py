"""A server without room for the whole history: it is fitted, said, and grows again with room."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from rich.console import Console

from bus import settings
from bus.contract import subjects
from bus.errors import BusError
from bus.settings import Settings
from bus.transport import connection, embedded_server, jetstream_api, layout
from bus.transport.embedded_server import EmbeddedServer
from gpuping.doctor import bus_checks
from gpuping.up import system
from gpuping.up.announce import banner
from tests.ports import free_port
from tests.waiting import until

MIB = 2**20


class SmallServer(EmbeddedServer):
    """As if its disk had only so much room."""

    def __init__(self, data_dir: Path, max_file_store: str) -> None:
        super().__init__(data_dir, free_port())
        self.max_file_store = max_file_store

    def _config(self) -> str:
        limit = f"max_file_store: {self.max_file_store}\n  sync_interval"
        return super()._config().replace("sync_interval", limit)


@asynccontextmanager
async def small_server(data_dir: Path, size: str) -> AsyncIterator[Settings]:
    server = SmallServer(data_dir, size)
    await server.start()
    try:
        yield settings.load({}, NATS_URL=server.url, GPUPING_DATA_DIR=str(data_dir), GATEWAY_PORT=0)
    finally:
        await server.stop()


async def max_bytes(client: connection.Client, name: str = subjects.HISTORY_STREAM) -> int:
    info = await jetstream_api.call(client, f"STREAM.INFO.{name}")
    return info["config"]["max_bytes"]


async def test_the_history_fits_the_disk_and_grows_when_there_is_room(tmp_path: Path):
    async with (
        small_server(tmp_path, "700MB") as small,
        connection.connected(small, "test") as client,
    ):
        await layout.ensure(client, small)
        assert await max_bytes(client) == 512 * MIB
        remark = await layout.room_remark(client, small)
        assert remark is not None
        assert "512 MiB" in remark
        assert "GPUPING_HISTORY_STREAM_GB=8" in remark
        assert await max_bytes(client, subjects.AUDIT_STREAM) == 64 * MIB
        assert "the audit log keeps 64 MiB instead of 256 MiB" in remark
        for grow in (False, True):  # whoever starts next leaves it as it is
            await layout.ensure(client, small, grow=grow)
            assert await max_bytes(client) == 512 * MIB
        assert await layout.inspect(client, small) == []
        finding = await bus_checks.streams(client, small)
        assert finding.level == "warning"
        assert remark in finding.detail
        assert "GPUPING_HISTORY_STREAM_GB" in finding.advice
    async with (
        small_server(tmp_path, "20GB") as large,
        connection.connected(large, "test") as client,
    ):
        await layout.ensure(client, large)
        assert await max_bytes(client) == 512 * MIB
        await layout.ensure(client, large, grow=True)
        assert await max_bytes(client) == 8192 * MIB
        assert await max_bytes(client, subjects.AUDIT_STREAM) == 256 * MIB
        assert await layout.room_remark(client, large) is None
        assert (await bus_checks.streams(client, large)).level == "ok"


async def test_up_starts_with_little_room_and_says_so(tmp_path: Path):
    async with small_server(tmp_path / "bus", "300MB") as small:
        options = system.Options(local_agent=False)
        async with system.running(small, options) as running:
            console = Console(record=True, width=200)
            console.print(banner(running))
            assert "the history stream keeps 128 MiB" in console.export_text()
            fleet = await running.fleet_client.troubles()
            assert not any(fleet.values())


@pytest.mark.parametrize("size", ["128MB", "256MB", "1GB", "8GB"])
async def test_the_other_streams_have_room_beside_the_history(tmp_path: Path, size: str):
    """Whatever the history is fitted to: the bucket has no limit of its own and needs room."""
    async with (
        small_server(tmp_path, size) as small,
        connection.connected(small, "test") as client,
    ):
        await layout.ensure(client, small)
        stream = client.jetstream()
        for number in range(16):
            await stream.publish(f"{subjects.KEYS}test.{number}", bytes(2**20))
        await layout.ensure(client, small)
        assert await layout.inspect(client, small) == []


async def test_no_room_at_all_is_one_line_with_advice(tmp_path: Path):
    async with (
        small_server(tmp_path, "20MB") as tiny,
        connection.connected(tiny, "test") as client,
    ):
        with pytest.raises(BusError, match=r"\[10047\]: make room on the disk"):
            await layout.ensure(client, tiny)


async def test_every_refusal_of_jetstream_has_advice(bus: connection.Client):
    with pytest.raises(BusError, match=r"\[\d+\]: \w+"):
        await jetstream_api.call(bus, "STREAM.INFO.NOTHING")
    with pytest.raises(BusError, match=r"\[\d+\]: \w+"):
        await jetstream_api.call(bus, "STREAM.CREATE.BAD", {"name": "OTHER"})


@pytest.mark.parametrize("name", ["ünï", "データ", 'a "quoted" one', "back\\slash", "$dollar #1"])
async def test_a_data_dir_of_any_name(tmp_path: Path, name: str):
    async with embedded_server.running(tmp_path / name, port=free_port()) as server:
        chosen = settings.load({}, NATS_URL=server.url)
        async with connection.connected(chosen, "test") as client:
            await layout.ensure(client, chosen)
        assert (tmp_path / name / "nats" / "nats-server.log").exists()


async def test_a_server_that_does_not_start_speaks_for_itself(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(EmbeddedServer, "_config", lambda _: "port: 4222\nno_such_field: 1\n")
    async with asyncio.timeout(60):
        with pytest.raises(BusError, match="no_such_field"):
            async with embedded_server.running(tmp_path, port=0):
                pass


class ShortLogs(EmbeddedServer):
    """As after 10 MB of log, already after a few lines."""

    def _config(self) -> str:
        return super()._config().replace("logfile_size_limit: 10MB", "logfile_size_limit: 2KB")


async def test_the_servers_log_is_rotated_and_old_files_go(tmp_path: Path):
    """Whoever is refused again and again does not fill the disk."""
    server = ShortLogs(tmp_path, free_port())
    await server.start()
    try:
        for _ in range(200):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"no such protocol\r\n")
            await reader.read()  # until the server hangs up
            writer.close()
        await until(lambda: len(list(server.store.glob("nats-server.log*"))) == 5)
        sizes = [path.stat().st_size for path in server.store.glob("nats-server.log*")]
        assert max(sizes) < 3000
    finally:
        await server.stop()
