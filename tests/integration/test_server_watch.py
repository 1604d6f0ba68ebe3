"""The nats-server of `gpuping up`: killed, frozen, or on a disk that was full, it comes back."""

import asyncio
import os
import resource
import signal
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats.errors
import pytest
from nats.js import errors as js_errors
from structlog.testing import capture_logs

from bus import settings
from bus.contract import subjects
from bus.server_watchdog import Health
from bus.transport import connection
from bus.transport.embedded_server import EmbeddedServer
from bus.transport.server_watch import Patience, judged
from gpuping.client import own_server
from tests.ports import free_port
from tests.waiting import until

QUICK = Patience(look_seconds=0.2, answer_seconds=0.3, stop_seconds=0.2)
GENEROUS_SECONDS = 120.0
MESSAGE_BYTES = 100_000

Logs = list[MutableMapping[str, Any]]


class Up:
    """The server of a data dir, watched, and a client that may write to the bucket."""

    def __init__(self, data_dir: Path, client: connection.Client, logs: Logs) -> None:
        self.client = client
        self._pid_file = data_dir / "nats/nats-server.pid"
        self._logs = logs

    @property
    def process_id(self) -> int:
        """0 while there is none."""
        try:
            return int(self._pid_file.read_text())
        except (OSError, ValueError):
            return 0

    async def comes_back(self, before: int) -> None:
        await until(lambda: self.process_id not in {0, before}, GENEROUS_SECONDS)
        async with asyncio.timeout(GENEROUS_SECONDS):
            while not await self.writes():  # noqa: ASYNC110  # each look is an attempt
                await asyncio.sleep(0.1)

    async def writes(self, size: int = 1) -> bool:
        try:
            subject = subjects.state_key("a")
            await self.client.jetstream().publish(subject, bytes(size), timeout=0.5)
        except (nats.errors.Error, js_errors.Error):
            return False
        return True

    async def logged(self, event: str) -> None:
        await until(lambda: event in self.events, GENEROUS_SECONDS)

    @property
    def events(self) -> list[str]:
        return [str(line["event"]) for line in self._logs]


@asynccontextmanager
async def up(data_dir: Path) -> AsyncIterator[Up]:
    chosen = settings.load({}, GPUPING_DATA_DIR=str(data_dir))
    inbox_prefix = subjects.service_inbox("scheduler")
    with capture_logs() as logs:
        async with own_server.running(chosen, free_port(), QUICK) as server:
            as_scheduler = server.settings_of("scheduler")
            async with connection.connected(
                as_scheduler, "test", inbox_prefix=inbox_prefix
            ) as client:
                started = Up(data_dir, client, logs)
                await started.logged("nats_server_watched")
                yield started


async def test_a_server_that_hangs_is_ended_and_started_again(tmp_path: Path):
    async with up(tmp_path) as server:
        assert await server.writes()
        before = server.process_id
        os.kill(before, signal.SIGSTOP)
        await server.comes_back(before)
        for event in ("nats_server_unwell", "nats_server_hung", "nats_server_died"):
            assert event in server.events


async def test_a_server_that_refuses_every_write_is_started_again(tmp_path: Path):
    async with up(tmp_path) as server:
        before = server.process_id
        # as a disk that is full: a new process has no such limit
        most = (MESSAGE_BYTES // 2, resource.RLIM_INFINITY)
        resource.prlimit(before, resource.RLIMIT_FSIZE, most)
        assert not await server.writes(MESSAGE_BYTES)
        await server.comes_back(before)
        assert "nats_server_hung" in server.events


async def test_a_server_that_cannot_be_started_is_tried_again(tmp_path: Path):
    """Before, a full disk at that moment was the end of it: nobody started it any more."""
    async with up(tmp_path) as server:
        before = server.process_id
        configuration = tmp_path / "nats/nats-server.conf"
        configuration.unlink()
        configuration.mkdir()  # nobody can write it now
        os.kill(before, signal.SIGKILL)
        await server.logged("nats_server_start_failed")
        configuration.rmdir()
        await server.comes_back(before)
        assert "nats_server_hung" not in server.events


async def test_a_server_that_was_killed_keeps_what_it_said_last(nats_server: EmbeddedServer):
    assert nats_server.process
    with capture_logs() as logs:
        nats_server.process.send_signal(signal.SIGQUIT)
        await until(lambda: "nats_server_died" in [line["event"] for line in logs])
    assert "goroutine" in Path(logs[0]["last_words"]).read_text()


@pytest.mark.parametrize(
    ("answer", "health"),
    [
        (b'{"data": {"status": "ok", "status_code": 200}}', "healthy"),
        (b'{"data": {"status": "unavailable", "error": "write error: no space"}}', "cannot write"),
        (b'{"data": {"status": "unavailable", "error": "JetStream not enabled"}}', "cannot write"),
        (b'{"data": {"status": "unavailable", "error": "no leader"}}', "unhealthy"),
        (b"{}", "unhealthy"),
        (b"no answer", "unhealthy"),
    ],
)
def test_what_an_answer_says(answer: bytes, health: Health, tmp_path: Path):
    assert judged(answer, b"{}", tmp_path) == health
