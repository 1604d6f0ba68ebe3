"""Says which C library gpuping-agentd needs: the newest version that any part of it asks for.

    python deploy/release/needed_glibc.py dist/gpuping-agentd

The file brings its Python and libraries along, and takes the C library of the host. A file made on
a newer system than OLDEST_SYSTEM ends there at once, so that is said where the file is made.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

OLDEST_SYSTEM = "Ubuntu 22.04"
OLDEST_GLIBC = (2, 35)
_WANTED = re.compile(rb"\0GLIBC_(\d+)\.(\d+)(?=[.\0])")

Version = tuple[int, int]


def main() -> None:
    """Prints one line; a second one, on standard error, where OLDEST_SYSTEM is left out."""
    program = Path(sys.argv[1])
    newest, part = max((newest_of(data), name) for name, data in parts(program))
    print(f"{program} needs glibc {_text(newest)} or newer (for {part})")
    remark = too_new(newest)
    if remark is not None:
        print(f"{program} {remark}", file=sys.stderr)


def too_new(newest: Version) -> str | None:
    """What to tell whoever made a file that OLDEST_SYSTEM cannot run; None where it can."""
    if newest <= OLDEST_GLIBC:
        return None
    return (
        f"does not run on {OLDEST_SYSTEM}, whose glibc is {_text(OLDEST_GLIBC)}: "
        f"make it on Debian 12 or {OLDEST_SYSTEM}, in a clone without .venv, by a Python that was "
        "built there from its source (make agentd-binary PYTHON=...); Debian 12's own is no such "
        "one, for its libexpat wants 2.36"
    )


def _text(version: Version) -> str:
    return f"{version[0]}.{version[1]}"


def parts(program: Path) -> Iterator[tuple[str, bytes]]:
    """The program's own beginning, and each library that it unpacks."""
    # of the environment for releases, which tests do not have
    from PyInstaller.archive.readers import CArchiveReader  # noqa: PLC0415

    archive = CArchiveReader(str(program))
    with program.open("rb") as file:
        yield program.name, file.read(archive._start_offset)  # noqa: SLF001  # the loader before it
    for name, entry in archive.toc.items():
        is_binary = entry[-1] == "b"
        if is_binary:
            yield name, archive.extract(name)


def newest_of(library: bytes) -> Version:
    """The newest version of the C library that an ELF file names. (0, 0) where it names none."""
    wanted = [(int(major), int(minor)) for major, minor in _WANTED.findall(library)]
    return max(wanted, default=(0, 0))


if __name__ == "__main__":
    main()
