"""What must never lose a row: kills, damage, a full disk, a frozen server.

Real processes, real files.
"""

import asyncio
import os
import random
import resource
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path

import duckdb
import pytest

from bus.clock import utc_now
from bus.contract import subjects
from bus.contract.messages import encode
from bus.contract.questions import HistoryReply, HistoryRequest, StorageStats
from bus.errors import RefusedError, UnavailableError
from bus.settings import Settings
from bus.transport import jetstream_api, micro_services
from bus.transport.connection import Client
from bus.transport.embedded_server import EmbeddedServer
from bus.transport.jetstream_api import JetStreamApiError
from storage import service
from storage.engine import database
from tests.freezing import frozen
from tests.history import read_history
from tests.storage_states import AgentState, caught_up, followed, publish, series, state
from tests.waiting import until_answered

AGENTS = 500


class Process:
    """A real storage process that can be killed and started again."""

    def __init__(self, settings: Settings) -> None:
        self.environ = {"NATS_URL": settings.nats_url, "GPUPING_DATA_DIR": str(settings.data_dir)}
        self.process: asyncio.subprocess.Process | None = None

    async def start(self, limit_bytes: int | None = None) -> None:
        def limits() -> None:
            if limit_bytes is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, resource.RLIM_INFINITY))

        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "storage"),
            env={"PATH": os.environ["PATH"]} | self.environ,
            cwd=Path(__file__).parents[2],
            preexec_fn=limits,
        )

    async def kill(self) -> None:
        assert self.process
        self.process.kill()
        await self.process.wait()


@asynccontextmanager
async def process(settings: Settings, limit_bytes: int | None = None) -> AsyncIterator[Process]:
    running = Process(settings)
    await running.start(limit_bytes)
    try:
        yield running
    finally:
        if running.process and running.process.returncode is None:
            await running.kill()


async def pour(client: Client, rounds: int, per_second: int) -> list[AgentState]:
    """Outcomes of many agents at a steady rate, each written when history has followed."""
    poured = []
    loop = asyncio.get_running_loop()
    began = loop.time()
    for number in range(1, rounds + 1):
        for agent in range(AGENTS):
            one = state(f"agent-{agent:03}", number, utc_now())
            await client.publish(subjects.state_key(one.agent_id), encode(one))
            poured.append(one)
            if len(poured) % 50 == 0:
                await asyncio.sleep(max(0.0, began + len(poured) / per_second - loop.time()))
        await followed(client, poured[-1])
    return poured


def rows_in(settings: Settings) -> list[tuple[str, int, int]]:
    """The file read by somebody else, after the service: agent, number, microseconds."""
    connection = duckdb.connect(str(database.HistoryPaths(settings).file), read_only=True)
    try:
        text = "SELECT agent_id, ping_seq, pinged_us FROM pings JOIN agents USING (agent)"
        return sorted(connection.execute(text).fetchall())
    finally:
        connection.close()


async def stream_rows(client: Client) -> list[tuple[str, int, int]]:
    history = await read_history(client)
    return sorted(
        (one.agent_id, one.last.ping_seq, round(one.last.pinged_at.timestamp() * 1e6))
        for states in history.values()
        for one in states
    )


async def _killed_again_and_again(bus: Client, settings: Settings, kills: int, rounds: int) -> None:
    chance = random.Random(kills)
    pouring = asyncio.create_task(pour(bus, rounds, per_second=1000))
    async with process(settings) as storage:
        for _ in range(kills):
            await asyncio.sleep(chance.uniform(0.45, 1.2))  # the moment is the test
            await storage.kill()
            await storage.start()
        poured = await pouring
        await caught_up(bus, len(poured), 60)
        await storage.kill()
    streamed = await stream_rows(bus)
    assert len(streamed) == len(poured)
    assert rows_in(settings) == streamed


async def test_killed_while_a_thousand_pings_a_second_arrive(bus: Client, base_settings: Settings):
    await _killed_again_and_again(bus, base_settings, kills=5, rounds=10)


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_killed_fifty_times(bus: Client, base_settings: Settings):
    await _killed_again_and_again(bus, base_settings, kills=50, rounds=100)


async def test_server_killed_and_frozen_under_ingest(
    bus: Client, base_settings: Settings, nats_server: EmbeddedServer
):
    async with service.running(base_settings):
        await publish(bus, [state(f"a{i}", 1, utc_now()) for i in range(200)])
        assert nats_server.process
        nats_server.process.kill()
        await until_answered(_answers(bus))
        await publish(bus, [state(f"a{i}", 2, utc_now()) for i in range(200)])
        async with frozen(nats_server.process):
            await asyncio.sleep(0.3)  # the freeze itself
        await publish(bus, [state(f"a{i}", 3, utc_now()) for i in range(200)])
        await caught_up(bus, 600, 60)
    assert rows_in(base_settings) == await stream_rows(bus)


def _answers(bus: Client):
    async def check() -> bool:
        try:
            await bus.jetstream().stream_info(subjects.HISTORY_STREAM)
        except Exception:  # noqa: BLE001  # whatever it says while it starts
            return False
        return True

    return check


async def _filled(bus: Client, settings: Settings) -> list[tuple[str, int, int]]:
    chance = random.Random(1)
    async with service.running(settings):
        for number in range(1, 4):
            await publish(
                bus,
                [
                    state(f"a{i}", number, utc_now(), response_ms=chance.random())
                    for i in range(300)
                ],
            )
        await caught_up(bus, 900)
    return rows_in(settings)


@pytest.mark.parametrize(
    "where",
    [
        0,
        0.5,
        "truncated",
        "one column",
        *(pytest.param(w, marks=pytest.mark.slow) for w in (12_388, 0.9, "emptied")),
    ],
)
async def test_a_damaged_file_is_set_aside_and_made_again(
    bus: Client, base_settings: Settings, where: float | str
):
    before = await _filled(bus, base_settings)
    file = database.HistoryPaths(base_settings).file
    data = bytearray(file.read_bytes())
    if where == "truncated":
        data = data[: len(data) // 2]
    elif where == "emptied":
        data = bytearray(b"this is not a database" * 1000)
    elif where == "one column":
        data = _damaged_column(file, data)
    else:
        start = int(where if where == 0 or where > 1 else len(data) * where)
        data[start : start + 8192] = os.urandom(len(data[start : start + 8192]))
    file.write_bytes(data)
    async with service.running(base_settings):
        await caught_up(bus, 900)
        await _everything_can_be_read(bus)
        await caught_up(bus, 900)
    assert rows_in(base_settings) == before
    assert list(file.parent.glob("*.damaged-*"))


def _damaged_column(file: Path, data: bytearray) -> bytearray:
    """Ruins one block that opening the file does not read: that of the response times."""
    connection = duckdb.connect(str(file), read_only=True)
    blocks = "SELECT block_id FROM pragma_storage_info('pings')"
    text = f"{blocks} WHERE column_name = 'response_us' AND block_id >= 0"
    block = connection.execute(text).fetchone()
    connection.close()
    assert block
    start = 3 * 4096 + block[0] * 262_144
    data[start + 100 : start + 262_000] = os.urandom(261_900)
    return data


async def _everything_can_be_read(bus: Client) -> None:
    """Reads all columns; damage that shows only now is mended, too."""

    async def readable() -> bool:
        try:
            asked = HistoryRequest(hours=87_600.0)
            for i in range(0, 300, 60):
                reply = await micro_services.ask(
                    bus, subjects.history(f"a{i}"), asked, HistoryReply, who="storage"
                )
                assert [ping.ping_seq for ping in reply.pings] == [3, 2, 1]
        except (RefusedError, UnavailableError, AssertionError):
            return False
        return True

    await until_answered(readable)


@pytest.mark.parametrize(
    "damage", ["flipped", "torn", pytest.param("garbage", marks=pytest.mark.slow)]
)
async def test_a_damaged_log_loses_nothing(bus: Client, base_settings: Settings, damage: str):
    async with process(base_settings) as storage:
        await pour(bus, 2, per_second=900)
        await caught_up(bus, 2 * AGENTS)
        await storage.kill()  # leaves the log unread
    log = database.HistoryPaths(base_settings).file.with_name("storage.duckdb.wal")
    data = bytearray(log.read_bytes())
    assert len(data) > 10_000
    middle = len(data) // 2
    if damage == "flipped":
        data[middle : middle + 64] = os.urandom(64)
    elif damage == "torn":
        data = data[:middle]
    else:
        data = bytearray(os.urandom(len(data)))
    log.write_bytes(data)
    async with service.running(base_settings):
        await caught_up(bus, 2 * AGENTS)
    assert rows_in(base_settings) == await stream_rows(bus)


async def test_a_full_disk_makes_ingest_wait_and_loses_nothing(
    bus: Client, base_settings: Settings
):
    async with process(base_settings, limit_bytes=200_000) as storage:
        poured = await pour(bus, 4, per_second=900)
        await until_answered(lambda: _waits(bus))
        stats = await micro_services.ask(
            bus, subjects.STORAGE_STATS, None, StorageStats, who="storage"
        )
        assert stats.ingest_waiting
        assert "storage" in stats.ingest_waiting
        assert stats.lag > 0
        assert stats.rows < len(poured)
        await until_answered(lambda: _refuses(bus))
        assert storage.process
        no_limit = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        resource.prlimit(
            storage.process.pid, resource.RLIMIT_FSIZE, no_limit
        )  # the disk has room again
        await caught_up(bus, len(poured))
        await storage.kill()
    assert rows_in(base_settings) == await stream_rows(bus)


async def test_a_disk_that_stays_full_is_told_once(
    bus: Client, base_settings: Settings, capfd: pytest.CaptureFixture[str]
):
    """However often it is tried again: each time the file can be opened, and nothing be written."""
    consumers: set[str] = set()

    async def tried_again() -> bool:
        verb = f"CONSUMER.INFO.{subjects.HISTORY_STREAM}.{base_settings.STORAGE_NAME}"
        with suppress(JetStreamApiError):
            info = await jetstream_api.call(bus, verb)
            consumers.add(info["created"])
            stats = await micro_services.ask(
                bus, subjects.STORAGE_STATS, None, StorageStats, who="storage"
            )
            assert stats.ingest_waiting is not None
        return len(consumers) > 3

    async with process(base_settings, limit_bytes=100_000) as storage:
        poured = await pour(bus, 2, per_second=900)
        await until_answered(lambda: _waits(bus))
        await until_answered(tried_again)
        assert storage.process
        resource.prlimit(
            storage.process.pid,
            resource.RLIMIT_FSIZE,
            (resource.RLIM_INFINITY, resource.RLIM_INFINITY),
        )
        await caught_up(bus, len(poured))
        await storage.kill()
    said = "".join(capfd.readouterr())
    assert said.count("ingest_paused") == said.count("ingest_resumed") == 1


async def _refuses(client: Client) -> bool:
    """Whether history says that it cannot be read. Each new try opens it for a moment."""
    try:
        await micro_services.ask(
            client, subjects.history("agent-001"), HistoryRequest(), HistoryReply, who="storage"
        )
    except RefusedError as refused:
        return "history cannot be read now" in refused.detail
    return False


async def _waits(client: Client) -> bool:
    try:
        stats = await micro_services.ask(
            client, subjects.STORAGE_STATS, None, StorageStats, who="storage"
        )
    except UnavailableError:
        return False  # it starts
    return stats.ingest_waiting is not None and stats.ingest_waiting != "starting"


async def test_a_folder_that_cannot_be_made_is_waited_for(bus: Client, base_settings: Settings):
    base_settings.data_dir.parent.mkdir(parents=True, exist_ok=True)
    base_settings.data_dir.write_text("a file where the folder should be")
    async with service.running(base_settings):
        await publish(bus, series("a", 2, utc_now() - timedelta(hours=1)))
        stats = await micro_services.ask(
            bus, subjects.STORAGE_STATS, None, StorageStats, who="storage"
        )
        assert stats.ingest_waiting is not None
        assert str(base_settings.data_dir) in stats.ingest_waiting
        base_settings.data_dir.unlink()
        await caught_up(bus, 2)
