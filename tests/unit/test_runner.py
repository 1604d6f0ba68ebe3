"""Programs in real processes: signals, the deadline of a stop, errors and exit codes."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from tests.freezing import frozen

ROOT = Path(__file__).parents[2]
GENEROUS_SECONDS = 60.0

# what a program does after it was told to stop: `done` at once, `never` not at all
PROGRAM = """
import asyncio, sys
from bus import runner
from bus.errors import BusError, SettingsError

async def main(lifecycle):
    {start}
    print("ready", flush=True)
    await lifecycle.until_stopped()
    print("stopping", flush=True)
    {stop}

{before}
sys.exit(runner.run(main, program="program", {options}))
"""
NEVER = "await asyncio.Event().wait()"


@asynccontextmanager
async def running(code: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that runs this text; killed at the end of the block."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@asynccontextmanager
async def program(
    start: str = "pass", stop: str = "pass", options: str = "", before: str = ""
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that runs a program of that kind; killed at the end of the block."""
    code = PROGRAM.format(start=start, stop=stop, options=options, before=before)
    async with running(code) as process:
        yield process


async def said(process: asyncio.subprocess.Process, line: bytes) -> None:
    assert process.stdout
    async with asyncio.timeout(GENEROUS_SECONDS):
        assert await process.stdout.readline() == line + b"\n"


async def end_of(process: asyncio.subprocess.Process) -> tuple[int | None, str]:
    """The exit code and what was written to standard error."""
    async with asyncio.timeout(GENEROUS_SECONDS):
        _, errors = await process.communicate()
    return process.returncode, errors.decode()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_stops_in_good_order(number: signal.Signals) -> None:
    async with program() as process:
        await said(process, b"ready")
        process.send_signal(number)
        await said(process, b"stopping")
        assert await end_of(process) == (0, "")


COMMAND = """
import asyncio, sys
from pathlib import Path
from bus import runner

async def main(lifecycle):
    print("begun", flush=True)
    {work}

sys.exit(runner.run_command(main))
"""


@asynccontextmanager
async def command(work: str) -> AsyncIterator[asyncio.subprocess.Process]:
    async with running(COMMAND.format(work=work)) as process:
        yield process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_command_that_a_signal_ends_is_not_done(number: signal.Signals) -> None:
    """Half of a backup had exit code 0, and whoever waited for it took it for one."""
    async with command(NEVER) as process:
        await said(process, b"begun")
        process.send_signal(number)
        code, errors = await end_of(process)
        assert (code, errors) == (1, "gpuping: ended by a signal before it was done\n")


@pytest.mark.parametrize(
    ("work", "line"),
    [
        ("Path('/dev/null/x').mkdir()", "gpuping: /dev/null/x: Not a directory\n"),
        ("open('/dev/full', 'wb', 0).write(b'x')", "gpuping: No space left on device\n"),
    ],
)
async def test_a_file_that_a_command_cannot_write_is_one_line(work: str, line: str) -> None:
    async with command(work) as process:
        assert await end_of(process) == (1, line)


async def test_a_signal_before_it_is_ready_cancels_the_start() -> None:
    start = f"print('starting', flush=True); {NEVER}"
    async with program(start) as process:
        await said(process, b"starting")
        process.terminate()
        assert await end_of(process) == (0, "")


async def test_the_second_signal_ends_it_at_once() -> None:
    async with program(stop=NEVER, options="stop_seconds=1000") as process:
        await said(process, b"ready")
        process.terminate()
        await said(process, b"stopping")
        await repeat_until_ended(process)
        assert await end_of(process) == (143, "program: stopped at once (SIGTERM again)\n")


async def test_a_second_signal_can_be_ignored() -> None:
    options = "stop_seconds=2, end_on_second_signal=False"
    async with program(stop=NEVER, options=options) as process:
        await said(process, b"ready")
        process.terminate()
        await said(process, b"stopping")
        await repeat_until_ended(process)
        text = "program: did not stop within 2 s: ended by force\n"
        assert await end_of(process) == (1, text)


async def test_what_does_not_stop_is_ended_at_the_deadline() -> None:
    async with program(stop=NEVER, options="stop_seconds=0.2") as process:
        await said(process, b"ready")
        process.terminate()
        await said(process, b"stopping")
        text = "program: did not stop within 0.2 s: ended by force\n"
        assert await end_of(process) == (1, text)


@pytest.mark.parametrize("limit", [5, 11])
async def test_too_few_descriptors_for_an_event_loop_are_said(limit: int) -> None:
    """Seed 305 of the drill: libuv aborted, without a word about why."""
    set_limit = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}))"
    async with program(before=set_limit) as process:
        text = "program: cannot start: Too many open files; "
        text += "allow more (LimitNOFILE= in systemd, ulimit -n)\n"
        assert await end_of(process) == (1, text)


@pytest.mark.parametrize("opened", ["socket.socket()", "open(os.devnull)"])
@pytest.mark.parametrize("entrance", ["run", "run_command"])
async def test_too_few_descriptors_for_the_work_are_said(opened: str, entrance: str) -> None:
    """With 16 the event loop was made, and the first connection was a traceback."""
    code = f"""
import os, resource, socket, sys
from bus import runner

async def main(lifecycle):
    opened = [{opened} for _ in range(16)]

resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))
sys.exit(runner.{entrance}(main))
"""
    async with running(code) as process:
        text = "gpuping: cannot go on: Too many open files; "
        text += "allow more (LimitNOFILE= in systemd, ulimit -n)\n"
        assert await end_of(process) == (1, text)


async def test_up_is_not_started_with_fewer_descriptors_than_it_needs(tmp_path: Path) -> None:
    """With 18, its nats-server could not be started, and uvloop added tracebacks of its own."""
    code = f"""
import resource, sys
from gpuping.cli import main

resource.setrlimit(resource.RLIMIT_NOFILE, (18, 18))
sys.exit(main(["up", "--port", "0", "--data-dir", {str(tmp_path / "data")!r}]))
"""
    async with running(code) as process:
        text = "gpuping: cannot start: Too many open files; "
        text += "allow more (LimitNOFILE= in systemd, ulimit -n)\n"
        assert await end_of(process) == (1, text)


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        ("BusError('the bus\\n is away')", 1, "program: the bus is away\n"),
        ("SettingsError('X=1: expected 2')", 2, "program: X=1: expected 2\n"),
        ("ExceptionGroup('', [SettingsError('X=1')])", 2, "program: X=1\n"),
    ],
)
async def test_an_error_that_was_foreseen_is_one_line(error: str, code: int, text: str) -> None:
    async with program(f"raise {error}") as process:
        assert await end_of(process) == (code, text)


async def test_a_file_of_another_user_is_one_line() -> None:
    error = "raise PermissionError(13, 'Permission denied', '/srv/gpuping/nats')"
    async with program(error) as process:
        _, err = await process.communicate()
    assert process.returncode == 1
    assert err.decode() == (
        "program: /srv/gpuping/nats cannot be used: Permission denied; run this as the user to "
        "whom it belongs, or choose another --data-dir\n"
    )


async def test_any_other_error_has_a_traceback() -> None:
    async with program("1 / 0") as process:
        code, text = await end_of(process)
        assert code == 1
        assert "ZeroDivisionError" in text
        assert "Traceback" in text


async def repeat_until_ended(process: asyncio.subprocess.Process) -> None:
    """Sends SIGTERM until the process has ended: the first few count as one with the first.

    It is sent past asyncio, whose `terminate` takes the exit code away from who waits for it.
    """
    ended = asyncio.create_task(process.wait())
    async with asyncio.timeout(GENEROUS_SECONDS):
        while not ended.done():
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGTERM)
            await asyncio.wait({ended}, timeout=0.2)


HANGS = "import time; asyncio.get_running_loop().call_later(0.1, time.sleep, 1000)"


async def test_a_program_whose_event_loop_hangs_is_ended_and_says_where_it_hung():
    async with program(start=HANGS, options="hung_seconds=2") as process:
        await said(process, b"ready")
        code, errors = await end_of(process)
    assert code == 1
    assert "the event loop has not run for 2 s: ended by force" in errors
    assert "Current thread" in errors


async def test_a_program_that_was_frozen_has_not_hung():
    async with program(options="hung_seconds=2") as process:
        await said(process, b"ready")
        async with frozen(process):
            await asyncio.sleep(4)  # longer than a loop may hang
        await asyncio.sleep(1.5)  # the watchdog looks, and finds that the loop runs
        process.send_signal(signal.SIGTERM)
        assert await end_of(process) == (0, "")
