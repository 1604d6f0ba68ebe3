"""`make drill NAME=...`: what an operator does, under load, each step once and audited.

servers   three servers: each is killed and frozen (15 and 60 s) in turn, twice; then a rolling
          restart of everything
migrate   three servers, streams of one replica: `gpuping bus migrate --replicas 3`
upgrade   services of another source tree (PREVIOUS=DIR), upgraded in turn to this one, back, again
restore   everything is lost but a backup that was made under load; pings go on from it
standstill  the whole machine stands still for 3, 10, 30 and 60 s, hosts included, and its
          processes go on in each of three orders: no host pays for it
presence  how soon `connected` is right after a closed socket, a frozen host, a pulled cable and a
          restart of server, scheduler or gateway (tests/chaos/presence.py)
"""

import argparse
import asyncio
import shutil
import sys
from pathlib import Path

from bus.clock import boottime
from tests.chaos import presence
from tests.chaos.attack import Attack
from tests.chaos.fleet import share_up
from tests.chaos.plan import Fault
from tests.chaos.run import (
    Result,
    Scenario,
    append,
    run,
    say,
    table,
    tell_failures,
    until_everyone_is_pinged,
)
from tests.chaos.system import Shape, System
from tests.history import read_history

ROUNDS = 2
FREEZES_SECONDS = (15.0, 60.0)
KILLED_SECONDS = 3.0
STANDSTILLS_SECONDS = (3.0, 10.0, 30.0, 60.0)
COMMAND_SECONDS = 300.0


async def servers(_result: Result, system: System, attack: Attack) -> None:
    """Kills and freezes each server in turn, then restarts everything in turn."""
    faults = []
    for _ in range(ROUNDS):
        for name in system.server_names:
            faults.append(Fault("kill", name, KILLED_SECONDS))
            faults += [Fault("freeze", name, seconds) for seconds in FREEZES_SECONDS]
    faults.append(Fault("rolling", "all", 0.0))
    for fault in faults:
        await _step(system, attack, fault)


async def _step(system: System, attack: Attack, fault: Fault) -> None:
    before = len(system.announced)
    await attack.carry_out(fault)
    thawed = boottime()
    await until_everyone_is_pinged(system)
    say(
        f"{fault.kind} {fault.target} {fault.seconds:g} s: everyone answered again after "
        f"{boottime() - thawed:.1f} s, {len(system.announced) - before} outcomes since"
    )


async def migrate(result: Result, system: System, attack: Attack) -> None:
    """From one replica to three while pings go on; then the services are told, in turn."""
    folder = system.folder / "migration"
    began = boottime()
    words = ("bus", "migrate", "--replicas", "3", "--copy-to", str(folder))
    code = await system.run_gpuping(*words, seconds=COMMAND_SECONDS)
    say(f"migrated with exit code {code} in {boottime() - began:.1f} s")
    if code != 0:
        result.problems.append(f"the migration ended with {code}")
    await until_everyone_is_pinged(system)
    for name in system.services:
        system.processes[name].environment["GPUPING_REPLICAS"] = "3"
    await _step(system, attack, Fault("rolling", "all", 0.0))
    # What one server of three can do now, it could not before.
    await _step(system, attack, Fault("kill", system.server_names[0], KILLED_SECONDS))


async def upgrade(_result: Result, system: System, attack: Attack) -> None:
    """The services of another release are replaced in turn by this one's, back, and again."""
    for tree in (None, system.shape.source, None):
        for name in system.services:
            if not name.startswith("fleet"):
                system.processes[name].cwd = tree
        await _step(system, attack, Fault("rolling", "all", 0.0))


async def restore(result: Result, system: System, attack: Attack) -> None:
    """Backs up under load, loses every server and the storage, and restores."""
    await attack.carry_out(Fault("backup", "all", 0.0))
    if not attack.backups:
        result.problems.append("the backup failed")
        return
    backup = attack.backups.pop()
    say(f"backed up while {len(system.announced)} outcomes were recorded")
    for name, process in system.processes.items():
        if name.startswith("fleet"):
            continue
        process.hold()
        process.kill()
    await asyncio.sleep(1)
    for name in (*system.server_names, "storage-1"):
        shutil.rmtree(system.data_of(name))
        system.data_of(name)
    for name in system.server_names:
        system.processes[name].release()
    await system.until_jetstream_answers()
    code = await system.run_gpuping("restore", str(backup), seconds=COMMAND_SECONDS)
    say(f"restored with exit code {code}")
    if code != 0:
        result.problems.append(f"the restore ended with {code}")
    history = await read_history(system.bus)
    restored = {
        (agent_id, state.ping_seq): state.last.pinged_at
        for agent_id, states in history.items()
        for state in states
    }
    say(f"{len(restored)} outcomes restored")
    # What was recorded after the backup is lost with the servers, and only that.
    system.announced = {key: at for key, at in system.announced.items() if key in restored}
    for process in system.processes.values():
        process.release()
    await until_everyone_is_pinged(system)


async def standstill(result: Result, system: System, _attack: Attack) -> None:
    """Stops every process at once. The hosts were healthy before, and so they are after it."""
    roles = ("server", "storage", "gateway", "scheduler", "fleet")
    orders = (roles, roles[::-1], ("scheduler", "fleet", "server", "storage", "gateway"))
    for seconds in STANDSTILLS_SECONDS:
        for order in orders:
            began = boottime()
            for process in system.processes.values():
                process.freeze()
            await asyncio.sleep(seconds)
            for role in order:
                for name, process in system.processes.items():
                    if name.startswith(role):
                        process.thaw()
            await until_everyone_is_pinged(system)
            took = boottime() - began - seconds
            say(f"{seconds:g} s, first {order[0]}: everyone answered again after {took:.1f} s")
    await until_everyone_is_pinged(system)
    result.problems += await _billed(system)


async def _billed(system: System) -> list[str]:
    """Returns what the hosts that were always up were billed for, however long that took."""
    problems = []
    for agent_id, states in (await read_history(system.bus)).items():
        if share_up(agent_id) < 1.0:
            continue
        problems += [
            f"{agent_id} #{state.ping_seq} is {state.last.outcome}, {state.last.reason}: "
            f"{state.last.seconds} of {state.last.window_seconds} s, {state.last.remarks}"
            for state in states
            if state.last.verdict == "poor" or state.last.outcome == "missed"
        ]
    return problems


DRILLS: dict[str, Scenario] = {
    "servers": servers,
    "migrate": migrate,
    "upgrade": upgrade,
    "restore": restore,
    "standstill": standstill,
}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="make drill",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=[*DRILLS, "presence"])
    parser.add_argument("--servers", type=int, choices=(1, 3), help="3, or 1 where that suffices")
    parser.add_argument("--hosts", type=int, default=600)
    parser.add_argument("--interval", type=float, default=3.0, help="seconds between pings")
    parser.add_argument("--previous", type=Path, help="the tree of the other release (upgrade)")
    parser.add_argument("--keep", action="store_true", help="the folder where it failed")
    parser.add_argument("--json", type=Path, help="append the result to this file")
    asked = parser.parse_args()
    if asked.name == "upgrade" and asked.previous is None:
        parser.error("upgrade needs --previous DIR")
    if asked.name == "presence":
        return presence.main()
    shape = Shape(
        servers=asked.servers or (3 if asked.name in {"servers", "migrate"} else 1),
        replicas=1 if asked.name == "migrate" else None,
        hosts=asked.hosts,
        interval_seconds=asked.interval,
        source=asked.previous,
    )
    result = asyncio.run(run(asked.name, shape, DRILLS[asked.name], keep=asked.keep))
    tell_failures(result)
    if asked.json is not None:
        append(asked.json, result)
    say("\n" + table([result]))
    return 0 if result.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
