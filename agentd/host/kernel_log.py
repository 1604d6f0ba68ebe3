"""XIDs from the kernel log, which has them even when NVML itself no longer answers.

In a container, or without CAP_SYSLOG on a hardened kernel, the log cannot be read, and XIDs come
from NVML's event set alone.
"""

import contextlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

KERNEL_LOG = Path("/dev/kmsg")
_RECORD = re.compile(rb"^[0-7],(\d+),(\d+),[^;]*;")  # a priority above 7 is user space writing
_XID = re.compile(rb"NVRM: Xid \(PCI:([0-9a-fA-F:.]+)\): (\d+)")
_RECORD_LIMIT = 8192  # the kernel's longest record
_MAX_RECORDS = 100_000  # the ring buffer holds fewer


class LoggedXid(NamedTuple):
    """A logged XID: its CLOCK_BOOTTIME, and the GPU's PCI address as sysfs spells it."""

    at: float
    pci: str
    number: int


class KernelLog:
    """Follows /dev/kmsg from message `after` on.

    Without `after` it begins with the next message: what was logged before agentd ran is not
    counted.
    """

    def __init__(self, after: int | None, path: Path = KERNEL_LOG) -> None:
        self.last = after
        self._descriptor: int | None = None
        with contextlib.suppress(OSError):
            self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        if after is None:
            for _ in self.xids():
                pass

    @property
    def readable(self) -> bool:
        """Whether there is a log to read."""
        return self._descriptor is not None

    def xids(self) -> Iterator[LoggedXid]:
        """The XIDs logged since the last call."""
        for record in self._records():
            head = _RECORD.match(record)
            if head is None:
                continue
            sequence = int(head[1])
            if self.last is not None and sequence <= self.last:
                continue
            self.last = sequence
            xid = _XID.match(record, head.end())
            if xid is not None:
                pci = xid[1].decode().lower()
                yield LoggedXid(_boottime(int(head[2])), pci, int(xid[2]))

    def _records(self) -> Iterator[bytes]:
        for _ in range(_MAX_RECORDS):
            if self._descriptor is None:
                return
            try:
                record = os.read(self._descriptor, _RECORD_LIMIT)
            except BlockingIOError:
                return
            except BrokenPipeError:
                # Records were overwritten before they were read; the next read continues after the
                # gap.
                continue
            except OSError:
                self.close()
                return
            if not record:
                return
            yield record

    def close(self) -> None:
        """Closes the log."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _boottime(logged_microseconds: int) -> float:
    """The log's clock, like CLOCK_MONOTONIC, stops during a suspend; CLOCK_BOOTTIME does not."""
    ago = time.clock_gettime(time.CLOCK_MONOTONIC) - logged_microseconds / 1e6
    return time.clock_gettime(time.CLOCK_BOOTTIME) - max(0.0, ago)
