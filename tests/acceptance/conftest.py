"""Launches systems for tests, and ends whatever a test left running."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from system import Program, Up, until

from tests.waiting import wait_for_months_end

Launch = Callable[..., Up]


@pytest.fixture
def programs() -> Iterator[list[Program]]:
    """Programs put here are killed at the end."""
    started: list[Program] = []
    yield started
    for program in started:
        if program.process.poll() is None:
            program.kill()


@pytest.fixture
def launch(tmp_path: Path, programs: list[Program]) -> Launch:
    """Starts `gpuping up` on this test's data dir; called again after an end, it is a restart."""

    def start(*arguments: str, **variables: str) -> Up:
        up = Up(tmp_path / "data", *arguments, **variables)
        programs.append(up)
        return up

    return start


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A system with two test agents that a module's tests share and only look at."""
    wait_for_months_end(180.0)  # tests of a module take less, and ask for the month of its pings
    up = Up(tmp_path_factory.mktemp("fleet"), "--register-agents", "2", "--no-agent")
    try:
        up.ready().printed("first answered ping")
        until(lambda: up.pings("sim-001") and up.pings("sim-002"), "both agents have history")
        yield up
    finally:
        up.stop()


@pytest.fixture(params=["bus", "rest"])
def where(request: pytest.FixtureRequest, fleet: Up) -> list[str]:
    """The options by which a verb finds the shared system, once over the bus and once over REST."""
    if request.param == "bus":
        return ["--data-dir", str(fleet.data_dir)]
    return ["--server-url", fleet.url]
