"""`python -m bench`: what it says before it measures anything."""

import subprocess
import sys


def _bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "bench", *arguments], capture_output=True, text=True, check=False)


def test_help_names_every_bench() -> None:
    told = _bench("--help")
    assert told.returncode == 0
    assert "storage_ingest" in told.stdout
    assert "million" in told.stdout


def test_a_name_that_is_no_bench_is_one_line_and_exit_code_2() -> None:
    told = _bench("storage_ingest", "nonsense")
    assert told.returncode == 2
    assert told.stdout == ""
    assert told.stderr.startswith("no bench 'nonsense'; there are scheduler_throughput, ")
    assert told.stderr.count("\n") == 1
