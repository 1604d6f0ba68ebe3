"""The schedulers' clock, in a process whose wall clock is really set while it runs."""

import os
import struct
import subprocess
import sys
from pathlib import Path

from tests.chaos.processes import build_clock

ROOT = Path(__file__).parents[2]
STEPS = (3600.0, -3600.0, 30.0)
PROGRAM = """
import struct, sys
from pathlib import Path
from bus.clock import utc_now
from bus.transport.bus_clock import BusClock

def set_clock(seconds):
    Path(sys.argv[1]).write_bytes(struct.pack("q", int(seconds * 1e9)))

for step in sys.argv[2:]:
    clock = BusClock(None)
    clock.note(0.0)
    before, wall, server = clock.now(), utc_now(), clock.server_now()
    set_clock(float(step))
    moved = [utc_now() - wall, clock.now() - before, clock.server_now() - server]
    print(*(one.total_seconds() for one in moved))
    set_clock(0.0)
"""


def test_a_clock_that_is_set_is_not_used_before_it_was_measured(tmp_path: Path):
    offset = tmp_path / "offset"
    offset.write_bytes(struct.pack("q", 0))
    library = build_clock(tmp_path)
    # By its name, for a path with a space in it would be read as two.
    preloaded = {"LD_PRELOAD": library.name, "LD_LIBRARY_PATH": str(library.parent)}
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(offset), *(str(step) for step in STEPS)],
        env=os.environ | preloaded | {"CLOCK_STEP_FILE": str(offset)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = run.stdout.splitlines()
    for step, line in zip(STEPS, lines, strict=True):
        wall, ours, server = (float(number) for number in line.split())
        assert abs(wall - step) < 1  # the clock was really set
        assert 0 <= ours < 1
        assert 0 <= server < 1
