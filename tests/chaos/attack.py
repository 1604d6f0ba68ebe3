"""Carries out the faults of the plan, and records what was done to whom and when."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from msgspec import Struct

from bus.clock import boottime
from tests.chaos.network import Condition
from tests.chaos.plan import Fault, Turn
from tests.chaos.system import System

BACKUP_SECONDS = 60.0
HEALTHY_SECONDS = 15.0  # within which a server whose disk has room again recovers by itself


class Happened(Struct, frozen=True):
    """One fault that was carried out; CLOCK_BOOTTIME, seconds."""

    kind: str
    target: str
    began: float
    ended: float


class Attack:
    """`happened` is the truth about our own side, for the auditor."""

    def __init__(self, system: System) -> None:
        self._system = system
        self.happened: list[Happened] = []
        self.backups: list[Path] = []  # that said they are complete
        self.failed_backups = 0
        self.servers_restarted = 0  # because they stayed unhealthy after their disk had room again
        self._kinds: dict[str, Callable[[Fault], Awaitable[None]]] = {
            "kill": self._kill,
            "freeze": self._freeze,
            "isolate": self._isolate,
            "narrow": self._narrow,
            "disk": self._disk,
            "descriptors": self._descriptors,
            "cut": self._link("cut"),
            "stall": self._link("stalled"),
            "slow": self._link("slow"),
            "clock": self._clock,
            "restart": self._restart,
            "power": self._power,
            "rolling": self._rolling,
            "backup": self._backup,
        }

    async def turn(self, turn: Turn) -> None:
        await asyncio.gather(*(self.carry_out(fault) for fault in turn.faults))
        await asyncio.sleep(turn.pause)

    async def carry_out(self, fault: Fault) -> None:
        began = boottime()
        await self._kinds[fault.kind](fault)
        self.happened.append(Happened(fault.kind, fault.target, began, boottime()))

    async def _kill(self, fault: Fault) -> None:
        """It is started again after `seconds`."""
        process = self._system.processes[fault.target]
        process.hold()
        process.kill()
        await asyncio.sleep(fault.seconds)
        process.release()

    async def _freeze(self, fault: Fault) -> None:
        process = self._system.processes[fault.target]
        process.freeze()
        await asyncio.sleep(fault.seconds)
        process.thaw()

    async def _isolate(self, fault: Fault) -> None:
        """Pulls the cable of a server: neither clients nor the other servers reach it."""
        assert self._system.namespaces
        await self._system.namespaces.isolate(fault.target, isolated=True)
        await asyncio.sleep(fault.seconds)
        await self._system.namespaces.isolate(fault.target, isolated=False)

    async def _narrow(self, fault: Fault) -> None:
        """The network of a server becomes slow: towards clients and the other servers."""
        assert self._system.namespaces
        await self._system.namespaces.slow(fault.target, slowed=True)
        await asyncio.sleep(fault.seconds)
        await self._system.namespaces.slow(fault.target, slowed=False)

    async def _disk(self, fault: Fault) -> None:
        disk = self._system.disks[fault.target]
        await asyncio.to_thread(disk.fill)
        await asyncio.sleep(fault.seconds)
        disk.free()
        if fault.target.startswith("server"):
            await self._restart_unhealthy(fault.target)

    async def _restart_unhealthy(self, server: str) -> None:
        """As a supervisor does that acts on health checks."""
        for _ in range(int(HEALTHY_SECONDS)):
            if await self._system.is_healthy(server):
                return
            await asyncio.sleep(1)
        self.servers_restarted += 1
        self._system.processes[server].kill()
        await self._system.until_jetstream_answers()

    async def _descriptors(self, fault: Fault) -> None:
        process = self._system.processes[fault.target]
        process.few_descriptors(few=True)
        await asyncio.sleep(fault.seconds)
        process.few_descriptors(few=False)

    def _link(self, condition: Condition) -> Callable[[Fault], Awaitable[None]]:
        async def change(fault: Fault) -> None:
            for link in self._system.links[fault.target]:
                link.set(condition)
            await asyncio.sleep(fault.seconds)
            for link in self._system.links[fault.target]:
                link.set("open")

        return change

    async def _clock(self, fault: Fault) -> None:
        process = self._system.processes[fault.target]
        process.step_clock(fault.amount)
        await asyncio.sleep(fault.seconds)
        process.step_clock(0.0)

    async def _restart(self, fault: Fault) -> None:
        await self._system.processes[fault.target].end()

    async def _power(self, fault: Fault) -> None:
        """Everything is gone at once, and comes back at once."""
        for process in self._system.processes.values():
            process.hold()
            process.kill()
        await asyncio.sleep(fault.seconds)
        for process in self._system.processes.values():
            process.release()
        await self._system.until_jetstream_answers()

    async def _rolling(self, _fault: Fault) -> None:
        """Each process in turn, in good order, as an upgrade does."""
        for name, process in self._system.processes.items():
            if name.startswith("fleet"):
                continue
            await process.end()
            if name.startswith("server"):
                await self._until_healthy(name)
            await asyncio.sleep(1)

    async def _until_healthy(self, server: str) -> None:
        for _ in range(30):
            if await self._system.is_healthy(server):
                break
            await asyncio.sleep(0.5)
        await self._system.until_jetstream_answers()

    async def _backup(self, _fault: Fault) -> None:
        """A backup under load; it may fail in the middle of a fault, and says so then."""
        folder = self._system.folder / f"backup-{len(self.backups) + self.failed_backups}"
        code = await self._system.run_gpuping("backup", str(folder), seconds=BACKUP_SECONDS)
        if code == 0:
            self.backups.append(folder)
        else:
            self.failed_backups += 1
