"""The C stand-in for libnvidia-ml.so.1: builds it, and makes the environment in which pynvml finds it."""

import os
import subprocess
from pathlib import Path

from bus.clock import boottime

_HERE = Path(__file__).parent
_SOURCES = [_HERE / "nvml.c", _HERE / "scenario.c"]
_FLAGS = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O1", "-fPIC", "-shared", "-fvisibility=hidden"]


def build(folder: Path) -> Path:
    """Compiles the library into `folder`, which then goes into LD_LIBRARY_PATH."""
    folder.mkdir(parents=True, exist_ok=True)
    library = folder / "libnvidia-ml.so.1"
    subprocess.run(["cc", *_FLAGS, "-o", str(library), *map(str, _SOURCES)], check=True, timeout=60)
    return folder


def environ(folder: Path, scenario: Path | None, *, started: float | None = None, **more: str) -> dict[str, str]:
    """Our environment with the stand-in in it. `started`: the scenario's zero, CLOCK_BOOTTIME (now)."""
    return {
        **os.environ,
        "LD_LIBRARY_PATH": str(folder),
        "NVML_STANDIN_STARTED": f"{boottime() if started is None else started:.6f}",
        **({"NVML_STANDIN_SCENARIO": str(scenario)} if scenario else {}),
        **more,
    }
