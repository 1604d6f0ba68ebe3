"""Loopback is never asked through a proxy, whatever the environment says."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.acceptance.system import Up, environment, run
from tests.waiting import wait_for_months_end

CLOSED = "http://127.0.0.1:1"
PROXY = dict.fromkeys(
    ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), CLOSED
) | {"no_proxy": "", "NO_PROXY": ""}
COMPOSE = yaml.safe_load((Path(__file__).parents[2] / "compose.yaml").read_text())


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    wait_for_months_end(120.0)
    started = Up(tmp_path_factory.mktemp("proxy"), AGENT_ID="a", **PROXY)
    try:
        started.ready()
        started.printed("first answered ping")
        yield started
    finally:
        started.stop()


@pytest.mark.parametrize(
    "verb",
    [
        ["top", "--json"],
        ["agents", "--json"],
        ["history", "a", "--json"],
        ["ping", "a", "--json"],
        ["report", "a", "--json"],
        ["replay", "--policy", "livepeer", "--json"],
        ["audit", "--json"],
        ["export", "history", "--output"],
    ],
    ids=lambda verb: verb[0],
)
def test_verbs_over_rest(up: Up, verb: list[str], tmp_path: Path) -> None:
    if verb[-1] == "--output":
        verb = [*verb, str(tmp_path / "table.csv")]
    done = run(*verb, "--server-url", up.url, **PROXY)
    assert done.returncode == 0, done.stderr


def test_a_name_of_this_machine(up: Up) -> None:
    url = up.url.replace("127.0.0.1", "localhost")
    done = run("agents", "--server-url", url, **PROXY)
    assert done.returncode == 0, done.stderr


def test_doctor(up: Up) -> None:
    done = run("doctor", "--data-dir", str(up.data_dir), **PROXY)
    assert "gateway" in done.stdout
    assert "is ready" in done.stdout
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("service", ["nats", "gateway"])
def test_the_health_checks_of_compose(up: Up, service: str) -> None:
    kind, program, option, code = COMPOSE["services"][service]["healthcheck"]["test"]
    assert (kind, program, option) == ("CMD", "python", "-c")
    here = code.replace("http://127.0.0.1:8222", up.url).replace("http://127.0.0.1:8000", up.url)
    done = subprocess.run(
        [sys.executable, "-c", here],
        env=environment(**PROXY),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_other_machines_are_asked_as_the_environment_says() -> None:
    done = run("agents", "--server-url", "http://gateway.example:8000", **PROXY)
    assert done.returncode == 1
    assert "Connection refused" in done.stderr  # by the proxy, and no name was looked up
