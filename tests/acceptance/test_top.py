"""`gpuping top` before a running system, driven by keys."""

import asyncio
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest
from system import Up, environment, until
from textual.pilot import Pilot
from textual.widgets import DataTable, Static

from bus.contract.dashboard import Dashboard
from gpuping.client.rest_source import RestSource
from gpuping.top.agent_screen import AgentScreen
from gpuping.top.application import TopApp

LONGEST_SECONDS = 60.0


async def eventually(pilot: Pilot[None], holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(LONGEST_SECONDS):
        while not holds():
            await pilot.pause(0.05)


def shown_ids(app: TopApp) -> list[str]:
    table = app.query_one(DataTable)
    return [str(key.value) for key in table.rows]


def text_of(app: TopApp, selector: str) -> str:
    return str(app.screen.query_one(selector, Static).content)


async def test_it_lists_sorts_searches_and_shows_one_agent(fleet: Up) -> None:
    until(lambda: fleet.pings("sim-001"), "the first ping is in history")
    app = TopApp(RestSource(fleet.url, None), 0.5)
    async with app.run_test(size=(120, 30)) as pilot:
        await eventually(pilot, lambda: len(shown_ids(app)) == 2)
        assert "2 agents" in text_of(app, "#fleet")
        await pilot.press("s", "s", "s", "s", "s")  # the last order: by id
        await eventually(pilot, lambda: "by id" in text_of(app, "#shown"))
        await eventually(pilot, lambda: shown_ids(app) == ["sim-001", "sim-002"])
        await pilot.press("r")
        await eventually(pilot, lambda: shown_ids(app) == ["sim-002", "sim-001"])
        await pilot.press("slash", *"SIM-001", "enter")
        await eventually(pilot, lambda: shown_ids(app) == ["sim-001"])
        await pilot.press("enter")
        await eventually(pilot, lambda: isinstance(app.screen, AgentScreen))
        await pilot.press("escape")
        await eventually(pilot, lambda: not isinstance(app.screen, AgentScreen))
        await pilot.press("escape")
        await eventually(pilot, lambda: len(shown_ids(app)) == 2)


class SlowSource(RestSource):
    """Answers later than it is asked again."""

    async def dashboard(self) -> Dashboard:
        await asyncio.sleep(0.5)
        return await super().dashboard()


async def test_answers_that_take_longer_than_the_interval_are_shown(fleet: Up) -> None:
    app = TopApp(SlowSource(fleet.url, None), 0.1)
    async with app.run_test(size=(80, 24)) as pilot:
        await eventually(pilot, lambda: len(shown_ids(app)) == 2)
        assert "2 agents" in text_of(app, "#fleet")


async def test_what_is_old_is_said_to_be(fleet: Up) -> None:
    app = TopApp(RestSource("http://127.0.0.1:9", None), 0.2)
    async with app.run_test(size=(80, 24)) as pilot:
        await eventually(pilot, lambda: "not up to date" in text_of(app, "#shown"))
        assert "trying again" in text_of(app, "#shown")


@pytest.mark.parametrize("end", ["q", "signal"])
def test_it_ends_in_good_order_in_a_real_terminal(fleet: Up, end: str) -> None:
    ours, theirs = pty.openpty()
    program = subprocess.Popen(
        [sys.executable, "-m", "gpuping", "top", "--server-url", fleet.url],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment(TERM="xterm-256color"),
    )
    os.close(theirs)
    seen = b""
    while b"sim-002" not in seen:
        seen += os.read(ours, 65536)
    if end == "q":
        os.write(ours, b"q")
    else:
        program.send_signal(signal.SIGTERM)
    try:
        while os.read(ours, 65536):
            pass
    except OSError:
        pass  # the terminal's other end is closed: the program has ended
    assert program.wait(LONGEST_SECONDS) == 0
    os.close(ours)
