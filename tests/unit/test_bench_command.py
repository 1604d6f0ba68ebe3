"""`python -m bench`: what it says before it measures anything."""

import subprocess
import sys
from pathlib import Path

from bench.__main__ import BENCHES, LATEST, LONG_BENCHES


def _bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments], capture_output=True, text=True, check=False
    )


def test_help_names_every_bench() -> None:
    told = _bench("--help")
    assert told.returncode == 0
    assert [name for name in (*BENCHES, *LONG_BENCHES) if name not in told.stdout] == []


def test_every_module_that_measures_is_a_bench_and_only_those() -> None:
    files = [file for file in LATEST.parent.glob("*.py") if file.stem != "__main__"]
    measuring = {file.stem for file in files if "async def measure(" in file.read_text()}
    assert measuring == {*BENCHES, *LONG_BENCHES}


def test_a_name_that_is_no_bench_is_one_line_and_exit_code_2() -> None:
    before = _kept(LATEST)
    told = _bench("storage_ingest", "nonsense")
    assert told.returncode == 2
    assert told.stdout == ""
    assert told.stderr.startswith("no bench 'nonsense'; there are scheduler_throughput, ")
    assert told.stderr.count("\n") == 1
    assert _kept(LATEST) == before


def _kept(file: Path) -> tuple[int, bytes] | None:
    return (file.stat().st_mtime_ns, file.read_bytes()) if file.exists() else None
