"""The real probe: judges readings and XIDs, and remembers what must survive a restart."""

import asyncio
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog
from msgspec import structs

from agentd.health import store
from agentd.health.judgement import HealthMemory, Latch, Xid, judge
from agentd.health.rules import Reading, XidTable, gpu_of, throttle_names
from agentd.host.kernel_log import KernelLog
from agentd.nvml.supervisor import FIRST_OPENING_SECONDS, CheckResult, ProbeSupervisor
from agentd.nvml.worker_process import is_pynvml_installed
from agentd.samples import Sample
from bus.clock import boot_id, boottime

log = structlog.get_logger("agentd.nvml.probe")


class NvmlProbe:
    """Asks NVML through a child process.

    `check` returns in bounded time, whatever the driver does.
    """

    simulated = False

    def __init__(
        self,
        interval: float,
        xids: XidTable,
        memory_file: Path,
        environ: Mapping[str, str] = os.environ,
        first_opening_seconds: float = FIRST_OPENING_SECONDS,
    ) -> None:
        self._supervisor: ProbeSupervisor | None = None  # None where pynvml is not installed
        if is_pynvml_installed():
            self._supervisor = ProbeSupervisor(interval, environ, first_opening_seconds)
        self._xids = xids
        self._file = memory_file
        self._memory = store.load_memory(memory_file, boot_id())
        self._kernel_log = KernelLog(self._memory.kernel_log)
        self._xid_counts: dict[str, Counter[int]] = {}  # by GPU UUID, since agentd's start
        self._failure: str | None = None
        self._lock = asyncio.Lock()

    async def check(self, expected: tuple[str, ...] = ()) -> Sample:
        """One check of every GPU.

        A hung driver delays it by a second or two, a slow first opening by up to 30 s.
        """
        now = boottime()
        async with self._lock:
            result = await self._ask(expected)
        self._remember_addresses(result.readings)
        xids = [Xid(uuid, number, now) for uuid, number in result.xids]
        xids += self._logged_xids()
        judged = judge(
            result.readings,
            xids,
            self._memory,
            now,
            self._xids,
            result.failure,
        )
        self._remember(judged.memory, had_xids=bool(xids))
        self._log_failure(result.failure)
        return Sample(
            at=self._read_at(now),
            gpus=judged.gpus,
            failure=result.failure,
            events=judged.events,
            unopened=result.unopened,
        )

    def _read_at(self, began: float) -> float:
        """When the GPUs of a check were read: after the library was opened, where it had to be."""
        if self._supervisor is None or self._supervisor.opened_at is None:
            return began
        return max(began, self._supervisor.opened_at)

    async def _ask(self, expected: tuple[str, ...]) -> CheckResult:
        if self._supervisor is None:
            return CheckResult(failure="library-absent")
        with_latches = {latch.uuid for latch in self._memory.latches}
        return await self._supervisor.check(expected, energy=with_latches)

    def _remember_addresses(self, readings: Sequence[Reading]) -> None:
        addresses = dict(self._memory.addresses)
        for reading in readings:
            if reading.pci:
                addresses[reading.pci] = reading.gpu_uuid
        if addresses != self._memory.addresses:
            self._memory = structs.replace(self._memory, addresses=addresses)
            store.save_memory(self._file, self._memory)

    def _logged_xids(self) -> list[Xid]:
        xids = []
        for logged in self._kernel_log.xids():
            xids.append(Xid(self._uuid_at(logged.pci), logged.number, logged.at))
        return xids

    def _uuid_at(self, pci: str) -> str | None:
        """The GPU at a PCI address. The kernel log writes the address without the function."""
        for address, uuid in self._memory.addresses.items():
            if address.startswith(pci):
                return uuid
        return None

    def _remember(self, memory: HealthMemory, *, had_xids: bool) -> None:
        """Saves only news: `gpuping doctor`, which checks too, must not overwrite agentd's file."""
        before = self._memory
        self._memory = structs.replace(memory, kernel_log=self._kernel_log.last)
        for xid in memory.recent:
            if xid not in before.recent:
                counts = self._xid_counts.setdefault(xid.uuid or "", Counter())
                counts[xid.number] += 1
                log.warning(
                    "xid_received",
                    gpu=xid.uuid,
                    xid=xid.number,
                )
        is_first = before.checked_at is None and not self._file.exists()
        latches_changed = _comparable(memory.latches) != _comparable(before.latches)
        if had_xids or is_first or latches_changed:
            store.save_memory(self._file, self._memory)

    def _log_failure(self, failure: str | None) -> None:
        if failure == self._failure:
            return
        self._failure = failure
        if failure is None:
            log.info("nvml_recovered")
        else:
            log.warning("nvml_failed", reason=failure)

    async def details(self) -> list[dict[str, Any]]:
        """Each GPU's details; None where NVML has none, and only its identity while it hangs."""
        if self._supervisor is None:
            return []
        async with self._lock:
            details = await self._supervisor.details()
        for gpu in details:
            gpu["simulated"] = False
            gpu["xids"] = self._xids_of(gpu["uuid"])
            gpu["throttle_reasons"] = throttle_names(gpu.get("throttle_bits"))
        return details

    def _xids_of(self, uuid: str) -> dict[str, int]:
        """How often each XID was seen since agentd's start."""
        counts = self._xid_counts.get(gpu_of(uuid), Counter())
        return {str(number): count for number, count in counts.items()}

    async def close(self) -> None:
        """Ends the child within half a second; one that is stuck in the driver is left behind."""
        if self._supervisor is not None:
            await self._supervisor.close()
        self._kernel_log.close()


def _comparable(latches: tuple[Latch, ...]) -> list[tuple[str, int, float, bool]]:
    """The latches without their energy counters, which change at every check."""
    return [(latch.uuid, latch.xid, latch.since, latch.away) for latch in latches]
