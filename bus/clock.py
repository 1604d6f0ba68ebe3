"""The clocks. Read once a turn, in a loop or at a boundary, and passed on; pure modules never import this.

Wall time is a label. Durations come from CLOCK_BOOTTIME, which counts through a suspend and ignores
clock steps (docs/design/uptime-ledger.md).
"""

import time
from datetime import UTC, datetime
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def utc_now() -> datetime:
    """Wall time, aware, UTC."""
    return datetime.now(UTC)


def boottime() -> float:
    """Seconds since boot, suspend included; steps of the wall clock do not move it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    """Names this boot of this machine: within one boot_id, `boottime` values can be compared."""
    return _BOOT_ID.read_text().strip()
