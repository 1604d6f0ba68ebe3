"""The clocks. A loop reads them once a turn and passes the value on; pure modules do not.

Wall time is a label only. Durations come from CLOCK_BOOTTIME, which counts on during a suspend and
ignores steps of the wall clock (docs/design/uptime-ledger.md).
"""

import time
from datetime import UTC, datetime
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def utc_now() -> datetime:
    """Wall time as an aware datetime in UTC."""
    return datetime.now(UTC)


def boottime() -> float:
    """Seconds since boot, time in suspend included. Steps of the wall clock do not change it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    """Identifies this boot of this machine; values of `boottime` compare within one boot only."""
    return _BOOT_ID.read_text().strip()
