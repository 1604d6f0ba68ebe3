"""Builds the C stand-in for libnvidia-ml.so.1, and the environment in which pynvml finds it."""

import os
import subprocess
from pathlib import Path

_HERE = Path(__file__).parent
_SOURCES = [_HERE / "nvml.c", _HERE / "scenario.c"]
_FLAGS = [
    "-std=gnu11",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-O1",
    "-fPIC",
    "-shared",
    "-fvisibility=hidden",
]


def build(folder: Path) -> Path:
    """Compiles the library into `folder`, which then goes into LD_LIBRARY_PATH."""
    folder.mkdir(parents=True, exist_ok=True)
    library = folder / "libnvidia-ml.so.1"
    subprocess.run(["cc", *_FLAGS, "-o", str(library), *map(str, _SOURCES)], check=True, timeout=60)
    return folder


def unloadable(folder: Path) -> Path:
    """Makes a folder for LD_LIBRARY_PATH with a library that cannot be loaded.

    To who loads it that is the same as none, and it hides the real one of a machine with GPUs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "libnvidia-ml.so.1").write_text("not a library\n")
    return folder


class Stage:
    """A scenario whose time the test drives, so that no loaded machine is ever late for it."""

    def __init__(self, library: Path, folder: Path, scenario: str) -> None:
        self._library = library
        self._scenario = folder / "scenario.toml"
        self._clock = folder / "scenario.clock"
        self._scenario.write_text(scenario)
        self.to(0.0)

    def to(self, seconds: float) -> None:
        """It is now so many seconds after the scenario's start, and stays so."""
        beside = self._clock.with_suffix(".new")
        beside.write_text(f"{seconds}\n")
        beside.replace(self._clock)

    def environ(self, **more: str) -> dict[str, str]:
        """Our environment, with the stand-in in it."""
        return {
            **os.environ,
            "LD_LIBRARY_PATH": str(self._library),
            "NVML_STANDIN_SCENARIO": str(self._scenario),
            "NVML_STANDIN_CLOCK": str(self._clock),
            **more,
        }
