"""One run: a system is opened, something is done to it, and what it recorded is audited."""

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

from bus.clock import boottime
from bus.errors import BusError
from bus.settings import Settings
from bus.transport import connection, embedded_server
from tests.chaos import audit as auditing
from tests.chaos.attack import Attack
from tests.chaos.audit import Found
from tests.chaos.machine import command
from tests.chaos.system import Shape, System
from tests.history import read_history
from tests.ports import free_port

SETTLED_SECONDS = 200.0


Scenario = Callable[["Result", System, Attack], Awaitable[None]]


class Result:
    """What one run came to."""

    def __init__(self, name: str, shape: Shape) -> None:
        self.name = name
        self.shape = shape
        self.faults: Counter[str] = Counter()
        self.found = Found(Counter())
        self.recovered_seconds = 0.0
        self.problems: list[str] = []

    @property
    def is_good(self) -> bool:
        return not self.found.failures and not self.problems


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)  # noqa: T201


async def run(name: str, shape: Shape, scenario: Scenario, *, keep: bool) -> Result:
    """Runs the scenario on a system of that shape. With `keep`, a failed one's folder stays."""
    result = Result(name, shape)
    system = System(shape)
    attack = Attack(system)
    try:
        await system.open()
        await until_everyone_is_pinged(system)
        await scenario(result, system, attack)
        for process in system.processes.values():
            process.thaw()
        began = boottime()
        await until_everyone_is_pinged(system)
        result.recovered_seconds = boottime() - began
        for service in system.services:
            if service.startswith("scheduler"):
                system.processes[service].hold()
                await system.processes[service].end()
        result.found = await auditing.audit(system, attack)
        result.problems += await restored_problems(system, attack)
        result.problems += unexpected_ends(system)
    except Exception as error:  # noqa: BLE001  # the seed has failed, and the next one is run
        result.problems.append(f"{type(error).__name__}: {error}")
    finally:
        result.faults = Counter(f"{h.target.rpartition('-')[0]} {h.kind}" for h in attack.happened)
        await system.close(keep=keep and not result.is_good)
        if keep and not result.is_good:
            say(f"kept: {system.folder}")
    return result


async def until_everyone_is_pinged(system: System) -> None:
    """Returns when the history has another outcome of every host than at the call."""
    before: dict[str, int] = {}
    deadline = boottime() + SETTLED_SECONDS
    waiting = system.hosts
    while boottime() < deadline:
        try:
            counts = await system.outcome_counts()
        except BusError:
            counts = {}
        if counts and not before:
            before = counts
        waiting = [name for name in system.hosts if counts.get(name, 0) <= before.get(name, 0)]
        if not waiting:
            return
        await asyncio.sleep(0.3)
    raise TimeoutError(f"{len(waiting)} hosts are not pinged again, such as {waiting[:5]}")


def unexpected_ends(system: System) -> list[str]:
    """Services that ended by themselves. A supervisor starts them again, and yet it is a fault.

    nats-server is not ours: it ends where it finds a full disk at its start.
    """
    return [
        f"{name} ended by itself with {process.unexpected}"
        for name, process in system.processes.items()
        if process.unexpected and not name.startswith("server")
    ]


async def restored_problems(system: System, attack: Attack) -> list[str]:
    """Restores the last backup elsewhere and compares it with what was recorded."""
    if not attack.backups:
        return []
    folder = attack.backups[-1]
    history = await read_history(system.bus)
    elsewhere = system.folder / "elsewhere"
    async with embedded_server.running(elsewhere, port=free_port()) as server:
        environment = {"NATS_URL": server.url, "GPUPING_DATA_DIR": str(elsewhere / "data")}
        words = ["env", *(f"{name}={value}" for name, value in environment.items())]
        try:
            await command(*words, sys.executable, "-m", "gpuping", "restore", str(folder))
        except OSError as error:
            return [str(error)]
        settings = Settings(NATS_URL=server.url)
        async with connection.connected(settings, "chaos-restored") as bus:
            restored = await read_history(bus)
    problem = auditing.backup_problem(history, restored, folder)
    return [problem] if problem else []


def table(results: list[Result]) -> str:
    """What came out, a line a seed, and the sum."""
    head = f"{'run':>14} {'R':>2} {'faults':>6} {'answered':>9} {'missed':>7} {'excused':>8}"
    head += f" {'lost':>5} {'twice':>5} {'differ':>6} {'wrong':>6} {'poor':>5} {'credit':>6}"
    head += f" {'longest s':>9} {'back s':>7}"
    lines = [head]
    for result in results:
        found = result.found
        outcomes = found.outcomes
        lines.append(
            f"{result.name:>14} {result.shape.servers:>2} {result.faults.total():>6}"
            f" {outcomes['answered']:>9} {outcomes['missed']:>7} {outcomes['excused']:>8}"
            f" {len(found.lost):>5} {len(found.doubled):>5} {len(found.differing):>6}"
            f" {len(found.wrong):>6} {len(found.poor):>5} {len(found.credited):>6}"
            f" {found.longest_seconds:>9.1f} {result.recovered_seconds:>7.1f}"
            f"{'' if result.is_good else '  FAILED'}"
        )
    kinds: Counter[str] = sum((result.faults for result in results), Counter())
    lines.append(f"{kinds.total()} faults over {len(results)} runs: ")
    lines[-1] += ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items()))
    return "\n".join(lines)


def tell_failures(result: Result) -> None:
    for name, texts in result.found.failures.items():
        for text in texts[: auditing.TOLD]:
            say(f"  {name}: {text}")
    for problem in result.problems:
        say(f"  problem: {problem}")


def append(path: Path, result: Result) -> None:
    line = {
        "run": result.name,
        "servers": result.shape.servers,
        "faults": result.faults,
        "outcomes": result.found.outcomes,
        "failures": {name: len(texts) for name, texts in result.found.failures.items()},
        "problems": result.problems,
        "longest_seconds": round(result.found.longest_seconds, 1),
        "recovered_seconds": round(result.recovered_seconds, 1),
    }
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")
