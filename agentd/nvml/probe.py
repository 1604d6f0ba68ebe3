"""The real probe: readings from the child, XIDs of NVML and the kernel log, judged, and remembered across restarts."""

import asyncio
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog
from msgspec import structs

from agentd.health import store
from agentd.health.judgement import HealthMemory, Xid, judge
from agentd.health.rules import Reading, XidTable, gpu_of, throttle_names
from agentd.host.kernel_log import KernelLog
from agentd.nvml.supervisor import Answer, Asker
from agentd.nvml.worker_process import can_be_started
from agentd.samples import Sample
from bus.clock import boot_id, boottime

log = structlog.get_logger("agentd.probe_selection")


class NvmlProbe:
    """Asks NVML through a child process. `check` comes back in bounded time, whatever the driver does."""

    simulated = False

    def __init__(
        self,
        interval: float,
        xids: XidTable,
        memory_file: Path,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._asker = (
            Asker(interval, environ) if can_be_started() else None
        )  # None: pynvml is not installed
        self._xids = xids
        self._file = memory_file
        self._memory = store.load_memory(memory_file, boot_id())
        self._kernel_log = KernelLog(self._memory.kernel_log)
        self._seen: dict[str, Counter[int]] = {}
        self._failure: str | None = None
        self._lock = asyncio.Lock()

    async def check(self, expected: tuple[str, ...] = ()) -> Sample:
        """One check of every GPU. A hung driver costs it a second or two, a library that opens slowly ten, once."""
        now = boottime()
        async with self._lock:
            answer = await self._ask(expected)
        self._locate(answer.readings)
        xids = [Xid(uuid, number, now) for uuid, number in answer.xids] + list(self._logged())
        judged = judge(answer.readings, xids, self._memory, now, self._xids, answer.failure)
        self._remember(judged.memory, changed=bool(xids))
        self._tell(answer.failure)
        return Sample(at=now, gpus=judged.gpus, failure=answer.failure, events=judged.events)

    async def _ask(self, expected: tuple[str, ...]) -> Answer:
        if self._asker is None:
            return Answer(failure="library-absent")
        return await self._asker.check(expected, {latch.uuid for latch in self._memory.latches})

    def _locate(self, readings: Sequence[Reading]) -> None:
        addresses = self._memory.addresses | {
            reading.pci: reading.gpu_uuid for reading in readings if reading.pci
        }
        if addresses != self._memory.addresses:
            self._memory = structs.replace(self._memory, addresses=addresses)
            store.save_memory(self._file, self._memory)

    def _logged(self) -> list[Xid]:
        """The kernel names a GPU by its PCI address, without the function."""
        return [Xid(self._uuid_of(xid.pci), xid.number, xid.at) for xid in self._kernel_log.xids()]

    def _uuid_of(self, pci: str) -> str | None:
        return next(
            (uuid for address, uuid in self._memory.addresses.items() if address.startswith(pci)),
            None,
        )

    def _remember(self, memory: HealthMemory, *, changed: bool) -> None:
        """Saved only when there is news: whoever looks besides (`gpuping doctor`) must not write over agentd's file."""
        before, self._memory = (
            self._memory,
            structs.replace(memory, kernel_log=self._kernel_log.last),
        )
        fresh = [xid for xid in memory.recent if xid not in before.recent]
        for xid in fresh:
            self._seen.setdefault(xid.uuid or "", Counter())[xid.number] += 1
            log.warning("xid", gpu=xid.uuid, xid=xid.number)
        first = before.checked_at is None and not self._file.exists()
        if (
            changed
            or first
            or [*map(_standing, memory.latches)] != [*map(_standing, before.latches)]
        ):
            store.save_memory(self._file, self._memory)

    def _tell(self, failure: str | None) -> None:
        if failure != self._failure:
            log.warning("gpus_cannot_be_asked", reason=failure) if failure else log.info(
                "gpus_can_be_asked"
            )
            self._failure = failure

    async def details(self) -> list[dict[str, Any]]:
        """Each GPU's details; None where NVML does not say, and only its identity while it hangs."""
        if self._asker is None:
            return []
        async with self._lock:
            details = await self._asker.details()
        return [
            one
            | {"simulated": False, "xids": self._xids_seen(one["uuid"])}
            | {"throttle_reasons": throttle_names(one.get("throttle_bits"))}
            for one in details
        ]

    def _xids_seen(self, uuid: str) -> dict[str, int]:
        """How often each XID was seen since agentd's start."""
        return {
            str(number): count for number, count in self._seen.get(gpu_of(uuid), Counter()).items()
        }

    async def close(self) -> None:
        """Ends the child within half a second; one that is stuck in the driver is left behind."""
        if self._asker is not None:
            await self._asker.close()
        self._kernel_log.close()


def _standing(latch: Any) -> tuple[str, int, float, bool]:
    return (latch.uuid, latch.xid, latch.since, latch.away)
