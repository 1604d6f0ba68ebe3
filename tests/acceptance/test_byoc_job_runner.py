"""The example for Livepeer's job runners, against a running system."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from system import Up, environment, until

from storage.statements.policy_files import read_rules

EXAMPLE = Path(__file__).parents[2] / "examples" / "byoc_job_runner.py"


@pytest.fixture(scope="module")
def runner() -> ModuleType:
    spec = importlib.util.spec_from_file_location("byoc_job_runner", EXAMPLE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("uptime", "available", "share"),
    [
        (100.0, True, 1.0),
        (99.0, True, 1.0),
        (98.999, True, 0.5),
        (95.0, True, 0.5),
        (94.99, True, 0.1),
        (90.0, True, 0.1),
        (89.99, True, 0.0),
        (0.0, True, 0.0),
        (None, True, 1.0),
        (100.0, False, 0.0),
        (100.0, None, 0.0),
    ],
)
def test_rate_follows_the_bands(
    runner: ModuleType, uptime: float | None, available: bool | None, share: float
) -> None:
    check = runner.GpuCheck(uptime_percent=uptime, gpu_available=available, status="healthy")
    assert runner.share_of_full_rate(check) == share


def test_its_bands_are_those_that_statements_are_paid_by(runner: ModuleType) -> None:
    livepeer = read_rules("livepeer")
    assert tuple((band.at_least, band.rate) for band in livepeer.bands) == runner.BANDS


def test_jobs_run_while_the_host_is_up(fleet: Up) -> None:
    until(lambda: fleet.pings("sim-001"), "the first ping is in history")
    command = [sys.executable, str(EXAMPLE), "--gateway", fleet.url, "--agent", "sim-001"]
    ended = subprocess.run(
        [*command, "--jobs-per-minute", "6000", "--jobs", "3"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert ended.stderr == ""
    assert ended.stdout.splitlines()[1:] == ["job 1", "job 2", "job 3"]
    assert "rate 100%" in ended.stdout


def test_a_host_nobody_can_judge_gets_no_job(
    runner: ModuleType, fleet: Up, capsys: pytest.CaptureFixture[str]
) -> None:
    rate = runner.Rate(fleet.url, "no-such-host", None)
    assert rate.share(0.0) == 0.0
    assert "refused (404)" in capsys.readouterr().err
    rate = runner.Rate("http://127.0.0.1:9", "sim-001", None)
    assert rate.share(0.0) == 0.0
    assert "does not answer" in capsys.readouterr().err


def test_the_last_answer_lasts_for_a_while(runner: ModuleType, fleet: Up) -> None:
    until(lambda: fleet.pings("sim-001"), "the first ping is in history")
    rate = runner.Rate(fleet.url, "sim-001", None)
    assert rate.share(0.0) == 1.0
    rate._gateway = "http://127.0.0.1:9"
    assert rate.share(runner.ANSWER_LASTS_SECONDS - 1) == 1.0
    assert rate.share(runner.ANSWER_LASTS_SECONDS) == 0.0
