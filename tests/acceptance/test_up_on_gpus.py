"""The quick start on a machine with GPUs: `gpuping up` with default settings and the C stand-in.

However long the driver takes to open, the first ping finds all GPUs up, and the page says healthy.
"""

import shutil
from pathlib import Path

import httpx
import pytest
from system import Up, until

from tests import standin
from tests.browser import chromium

AGENT = "agent-001"
GPUS = 4
# tests/integration/test_first_ping.py has all of them in `make test`, against one system
OPENINGS_SECONDS = (
    0.0,
    pytest.param(0.3, marks=pytest.mark.slow),
    pytest.param(1.5, marks=pytest.mark.slow),
    pytest.param(3.0, marks=pytest.mark.slow),
    pytest.param(9.0, marks=pytest.mark.slow),
)

pytestmark = pytest.mark.skipif(
    shutil.which("cc") is None, reason="no C compiler to build the stand-in with"
)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return standin.build(tmp_path_factory.mktemp("standin"))


def start(launch, library: Path, tmp_path: Path, opening_seconds: float) -> Up:
    scenario = tmp_path / "scenario.toml"
    scenario.write_text(f"gpus = {GPUS}\n")
    return launch(
        AGENT_ID=AGENT,
        LD_LIBRARY_PATH=str(library),
        NVML_STANDIN_SCENARIO=str(scenario),
        NVML_STANDIN_OPENING=str(opening_seconds),
    )


@pytest.mark.parametrize("opening_seconds", OPENINGS_SECONDS)
def test_the_first_ping_finds_all_gpus_up(launch, library, tmp_path, opening_seconds) -> None:
    up = start(launch, library, tmp_path, opening_seconds)
    up.printed(f"first answered ping {AGENT}")
    up.ready()
    first = until(lambda: up.pings(AGENT), "history has the ping")[0]
    assert (first["ping_seq"], first["outcome"], first["verdict"]) == (1, "answered", "first")
    assert [gpu["state"] for gpu in first["gpus"]] == ["up"] * GPUS
    agent = up.agents()[AGENT]
    assert (agent["status"], agent["missed_pings"]) == ("healthy", 0)
    assert "simulated" not in agent["metadata"]
    check = httpx.post(f"{up.url}/worker/gpu-check", json={"agent_id": AGENT}, timeout=60).json()
    assert (check["gpu_available"], check["status"]) == (True, "healthy")


def test_the_page_shows_it_healthy(launch, library, tmp_path) -> None:
    up = start(launch, library, tmp_path, 1.5)
    up.printed(f"first answered ping {AGENT}")
    up.ready()
    with chromium(tmp_path / "profile") as page:
        page.open(f"{up.url}/")
        page.see(f"[data-agent={AGENT}][data-status=healthy]", AGENT)
