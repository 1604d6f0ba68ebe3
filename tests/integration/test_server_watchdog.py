"""A nats-server or a service that hangs, or cannot write any more, is ended for its supervisor."""

import asyncio
import os
import resource
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import nats
import pytest
from nats.js import errors as js_errors

from bus.server_watchdog import LOOKS, Health, Judge, is_limited_by_mistake
from bus.transport.embedded_server import find_binary
from tests.freezing import frozen
from tests.nats_cluster import free_ports

ROOT = Path(__file__).parents[2]
GENEROUS_SECONDS = 60.0
LOOK_SECONDS = 0.2
MESSAGE_BYTES = 100_000


@asynccontextmanager
async def watched(
    folder: Path, port: int, *options: str, limit: str = "1GB"
) -> AsyncIterator[Process]:
    """A server under the watchdog, which has found it healthy."""
    (monitor,) = free_ports(1)
    configuration = folder / "nats.conf"
    configuration.write_text(
        f"host: 127.0.0.1\nport: {port}\nhttp: 127.0.0.1:{monitor}\n"
        f'jetstream {{ store_dir: "{folder / "store"}", max_file_store: {limit} }}\n'
    )
    watchdog = (sys.executable, "-m", "bus.server_watchdog", "--store", str(folder))
    process = await asyncio.create_subprocess_exec(
        *watchdog,
        *("--monitor-port", str(monitor), "--look-seconds", str(LOOK_SECONDS)),
        *options,
        *(find_binary(), "-c", str(configuration)),
        cwd=ROOT,
        stderr=PIPE,
    )
    try:
        await said(process, "watched from now on")
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def said(process: Process, words: str) -> None:
    assert process.stderr
    async with asyncio.timeout(GENEROUS_SECONDS):
        while words not in (await process.stderr.readline()).decode():
            assert not process.stderr.at_eof(), words


async def end_of(process: Process) -> int:
    assert process.stderr
    async with asyncio.timeout(GENEROUS_SECONDS):
        await process.stderr.read()
        return await process.wait()


async def test_a_server_that_hangs_is_ended(tmp_path: Path):
    (port,) = free_ports(1)
    soon = ("--answer-seconds", "0.2", "--stop-seconds", "0.2")
    async with watched(tmp_path, port, *soon) as server, frozen(server):
        await said(server, "it does not answer its health check")
        assert await end_of(server) == -signal.SIGKILL


@pytest.mark.slow
async def test_a_service_that_is_frozen_is_ended(tmp_path: Path):
    """Its own watchdog is a thread of it, and a container engine only calls it unhealthy."""
    (port,) = free_ports(1)
    soon = ("--look-seconds", "0.1", "--answer-seconds", "0.1", "--stop-seconds", "0.1")
    agent = {"AGENT_SCENARIO": "healthy", "AGENT_ID": "a", "AGENT_HTTP_PORT": str(port)}
    service = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bus.service_watchdog", "--port", str(port), *soon),
        *(sys.executable, "-m", "agentd"),
        cwd=ROOT,
        env={**os.environ, **agent, "AGENT_STATE_DIR": str(tmp_path)},
        stderr=PIPE,
        stdout=DEVNULL,
    )
    try:
        await said(service, "watched from now on")
        async with frozen(service):
            await said(service, "it does not answer its health check")
            assert await end_of(service) == -signal.SIGKILL
    finally:
        if service.returncode is None:
            service.kill()
        await service.wait()


async def test_a_server_that_refuses_every_write_is_ended_when_there_is_room(tmp_path: Path):
    (port,) = free_ports(1)
    async with watched(tmp_path, port) as server:
        client = await nats.connect(f"nats://127.0.0.1:{port}")
        stream = client.jetstream()
        await stream.add_stream(name="stream", subjects=["subject"])
        most = (MESSAGE_BYTES // 2, resource.RLIM_INFINITY)
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, most)
        with pytest.raises((js_errors.APIError, nats.errors.TimeoutError)):
            await stream.publish("subject", bytes(MESSAGE_BYTES), timeout=2)
        await client.close()
        await said(server, "it cannot write, although there is room")
        assert await end_of(server) == 0, "it stopped in good order"


async def test_a_server_that_was_started_on_a_full_disk_is_ended_when_there_is_room(
    tmp_path: Path,
):
    """It allows itself less than its streams use, and is healthy for all that."""
    (port,) = free_ports(1)
    async with watched(tmp_path, port) as server:
        client = await nats.connect(f"nats://127.0.0.1:{port}")
        stream = client.jetstream()
        await stream.add_stream(name="stream", subjects=["subject"])
        for _ in range(20):
            await stream.publish("subject", bytes(MESSAGE_BYTES))
        await client.close()
        server.terminate()
        await server.wait()
    async with watched(tmp_path, port, limit="1500KB") as server:
        await said(server, "it was started on a full disk")
        assert await end_of(server) == 0


@pytest.mark.parametrize(
    ("used", "limit", "is_mistake"),
    [
        (1_000_000, 750_000, True),
        (1_000_000, 1_000_000, False),  # the operator's own limit, which is reached
        (1_010_000, 1_000_000, False),  # and passed by the last message
        (0, 0, False),
        (10**18, 10**17, False),  # the disk has no room still
    ],
)
def test_a_limit_is_no_mistake_where_a_start_anew_helps_nobody(
    tmp_path: Path, used: int, limit: int, *, is_mistake: bool
):
    assert is_limited_by_mistake(used, limit, tmp_path) is is_mistake


async def test_a_server_keeps_its_signals_and_its_exit_code(tmp_path: Path):
    (port,) = free_ports(1)
    async with watched(tmp_path, port) as server:
        server.terminate()
        assert await end_of(server) == 0


@pytest.mark.parametrize(
    ("looks", "must_end"),
    [
        (["mute"] * 50, False),  # it was never healthy: it may be reading its store
        (["healthy", *["mute"] * LOOKS], True),
        (["healthy", *["mute"] * (LOOKS - 1), "healthy", *["mute"] * (LOOKS - 1)], False),
        (["healthy", *["mute", "cannot write"] * LOOKS], False),
        (["healthy", *["cannot write"] * LOOKS], True),
        (["healthy", *["unhealthy"] * 50], False),  # a cluster without a leader
    ],
)
def test_it_takes_several_looks_in_a_row(looks: Sequence[Health], must_end: bool):
    judge = Judge()
    ends = [judge.must_end(health) for health in looks]
    assert any(ends) is must_end
