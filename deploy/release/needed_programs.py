"""Says what `make agentd-binary` needs of the system and does not find, before anything is built.

    python deploy/release/needed_programs.py

PyInstaller says so too, but one thing at a time, and in a release only after the packages.
"""

import ctypes
import shutil
import sys
import sysconfig
from pathlib import Path


def main() -> int:
    """Prints a line for each that is missing. Returns 1 where one is."""
    missing = [
        f"{name} (Debian and Ubuntu: apt-get install binutils)"
        for name in ("objdump", "strip")
        if shutil.which(name) is None
    ]
    library = sysconfig.get_config_var("INSTSONAME") or "libpython"
    if not is_shared_library(library, Path(sysconfig.get_config_var("LIBDIR") or "/")):
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        missing.append(
            f"{library}, the shared library of this Python ({sys.executable}; "
            f"Debian and Ubuntu: apt-get install libpython{version})"
        )
    for line in missing:
        print(f"make agentd-binary needs {line}", file=sys.stderr)
    return int(bool(missing))


def is_shared_library(name: str, folder: Path) -> bool:
    """Whether the library of this Python can be loaded: from where it was built, or by the system.

    A Python that was built without one has a static library (`.a`) only.
    """
    if ".so" not in name:
        return False
    if (folder / name).exists():
        return True
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
