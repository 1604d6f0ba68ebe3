"""agentd as a real process: killed at random moments, told to stop, and watched by systemd."""

import asyncio
import itertools
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agentd.ledger import records
from agentd.ledger.ledger import NOT_RUNNING, Ledger
from agentd.ledger.records import HOST, LedgerCreated
from agentd.ledger.store import LedgerStore
from bus import clock, settings
from bus.contract import subjects
from bus.contract.agent_answers import AgentHealth
from bus.transport import embedded_server, micro_services

INTERVAL = 0.5
NOBODY = "nats://127.0.0.1:1"  # no bus: the ledger runs all the same


@contextmanager
def agentd(folder: Path, **environ: str) -> Iterator[subprocess.Popen[bytes]]:
    """A real agentd with a simulated GPU; killed at the end of the block if it still runs."""
    own = {
        "AGENT_ID": "a-1",
        "AGENT_STATE_DIR": str(folder),
        "AGENT_SCENARIO": "healthy",
        "AGENT_GPU_CHECK_INTERVAL_SECONDS": str(INTERVAL),
        "NATS_URL": NOBODY,
    }
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "agentd"], env=os.environ | own | environ, stderr=log
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def kept(folder: Path) -> Ledger | None:
    """The ledger as it lies on disk; None where there is none yet."""
    path = folder / "a-1.ledger"
    found, _ = records.read(path.read_bytes()) if path.exists() else ([], 0)
    if not found:
        return None
    assert isinstance(found[0], LedgerCreated)
    ledger = Ledger(found[0], interval=INTERVAL, limit=10_000)
    for record in found:
        ledger.apply(record)
    return ledger


def wait_for_checks(folder: Path, count: int, process: subprocess.Popen[bytes]) -> Ledger:
    deadline = time.monotonic() + 60
    while True:
        ledger = kept(folder)
        if ledger and ledger.progress.checks >= count:
            return ledger
        assert time.monotonic() < deadline, (folder / "log").read_text()
        assert process.poll() is None, (folder / "log").read_text()
        time.sleep(0.02)


def kill_and_restart(folder: Path, times: int) -> None:
    """Kills at any moment, also at start-up; the file must be whole and at most a check old."""
    dice = random.Random(times)
    # Milliseconds that each kill itself cost; for the rest of the gap it was away.
    unsaved: list[int] = []
    for turn in range(times):
        before = kept(folder)
        with agentd(folder) as process:
            if turn % 2:  # at work; otherwise anywhere in its start
                wait_for_checks(folder, before.progress.checks + 1 if before else 1, process)
            time.sleep(dice.uniform(0, 3 * INTERVAL))  # the random moment is what is tested
            process.send_signal(signal.SIGKILL)
            killed_at = round(clock.boottime() * 1000)
            process.wait()
        after = kept(folder)
        if after and after.progress.checks > (before.progress.checks if before else 0):
            assert after.offset is not None
            unsaved.append(killed_at - after.offset - after.progress.until)
    assert len(unsaved) >= times // 2
    assert statistics.median_low(unsaved) <= 1500 * INTERVAL  # a busy machine checks late at times
    with agentd(folder) as process:
        ledger = wait_for_checks(folder, kept(folder).progress.checks + 2, process)
        process.terminate()
        # The alarm is the last resort of a host that is too busy to stop in good order within 5 s.
        assert process.wait(60) in {0, -signal.SIGALRM}
    assert not list(folder.glob("*.corrupt-*"))
    pieces = list(ledger.intervals(HOST, 0, ledger.progress.until))
    assert {piece.condition.state for piece in pieces} == {"up", "unknown"}
    assert any(piece.condition == NOT_RUNNING for piece in pieces)
    assert sum(piece.until - piece.since for piece in pieces) == ledger.progress.until


def test_kill_9_at_random_moments_costs_the_time_away_and_one_check(tmp_path):
    kill_and_restart(tmp_path, 4)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_kill_9_at_fifty_random_moments(tmp_path):
    kill_and_restart(tmp_path, 50)


def test_stops_cleanly_on_sigterm_and_keeps_the_time_until_then(tmp_path):
    with agentd(tmp_path) as process:
        wait_for_checks(tmp_path, 2, process)
        process.terminate()
        assert process.wait(60) == 0
    ledger = kept(tmp_path)
    assert ledger is not None
    assert ledger.progress.until > 500


def test_two_processes_with_one_ledger_are_refused(tmp_path):
    with agentd(tmp_path) as process:
        wait_for_checks(tmp_path, 1, process)
        with agentd(tmp_path) as second:
            assert second.wait(60) == 1
        assert "another agentd keeps this ledger" in (tmp_path / "log").read_text()
        assert process.poll() is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AGENT_GPU_CHECK_INTERVAL_SECONDS", "often"),
        ("AGENT_ID", "a.b"),
        ("AGENT_SCENARIO", "nonesuch"),
    ],
)
def test_a_bad_setting_is_one_line_and_exit_code_2(tmp_path, name, value):
    with agentd(tmp_path, **{name: value}) as process:
        assert process.wait(60) == 2
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) == 1
    assert name in lines[0]
    assert value in lines[0]


def test_systemd_is_told_ready_alive_and_stopping(tmp_path):
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ears:
        ears.bind(address)
        ears.settimeout(60)
        with agentd(tmp_path, NOTIFY_SOCKET=address, WATCHDOG_USEC="200000") as process:
            assert ears.recv(100) == b"READY=1"
            assert ears.recv(100) == b"WATCHDOG=1"
            assert ears.recv(100) == b"WATCHDOG=1"
            process.terminate()
            heard = itertools.takewhile(
                lambda said: said != b"STOPPING=1", iter(lambda: ears.recv(100), None)
            )
            assert set(heard) <= {b"WATCHDOG=1"}
            assert process.wait(60) == 0


async def test_frozen_agent_comes_back_with_the_frozen_time_unknown(
    tmp_path, nats_server: embedded_server.EmbeddedServer, bus
):
    with agentd(tmp_path, NATS_URL=nats_server.url) as process:
        wait_for_checks(tmp_path, 2, process)
        process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(2.0)  # the frozen time, which the ledger has to call unknown
        process.send_signal(signal.SIGCONT)
        async with asyncio.timeout(60):
            health = await micro_services.ask(
                bus, subjects.health("a-1"), None, AgentHealth, who="agent"
            )
            before = health.checks
            while health.checks <= before:
                health = await micro_services.ask(
                    bus, subjects.health("a-1"), None, AgentHealth, who="agent"
                )
        process.terminate()
        process.wait(60)
    ledger = kept(tmp_path)
    assert ledger is not None
    frozen = [
        piece
        for piece in ledger.intervals(HOST, 0, ledger.progress.until)
        if piece.condition.reasons == ("no-sample",)
    ]
    assert sum(piece.until - piece.since for piece in frozen) >= 2000 - 1500 * INTERVAL - 50


def test_the_process_imports_only_what_it_needs():
    code = "import sys, agentd.process; print(*sys.modules)"
    loaded = set(
        subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True
        ).stdout.split()
    )
    # structlog itself takes rich where it is installed
    assert not loaded & {"litestar", "duckdb", "cyclopts", "uvicorn", "pynvml", "prometheus_client"}


def opening_seconds(path: Path, checks: int) -> float:
    """The CPU time in which a ledger opens whose eight GPUs changed at each check."""
    store = LedgerStore(path, settings.load({}))
    store.open(1)
    lines = [records.encode_line(store.ledger.created)]
    for at in range(checks):
        state = "up" if at % 2 else "down"
        for gpu in range(8):
            changed = records.ConditionChanged(at * 5_000, f"GPU-{gpu}", state, ("missing",))
            lines.append(records.encode_line(changed))
    store._file.rewrite(b"".join(lines))
    store._file.close()
    again = LedgerStore(path, settings.load({}))
    began = time.thread_time()
    again.open(2)
    took = time.thread_time() - began
    assert again.ledger.interval_count() == 8 * checks
    again._file.close()
    return took


def test_a_day_old_ledger_of_a_flapping_host_opens_as_fast_a_line_as_a_young_one(tmp_path):
    """Eight times the lines take about eight times as long, and not sixty-four times."""
    young = min(opening_seconds(tmp_path / f"young-{n}.ledger", 1_250) for n in range(3))
    assert opening_seconds(tmp_path / "old.ledger", 10_000) < 24 * young
