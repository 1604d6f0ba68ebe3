"""`make chaos SEED=n MINUTES=m`: one seed after another, and a table of what they came to."""

import argparse
import asyncio
import sys
from pathlib import Path

from bus.clock import boottime
from tests.chaos import plan
from tests.chaos.attack import Attack
from tests.chaos.machine import is_root
from tests.chaos.run import Result, append, run, say, table, tell_failures
from tests.chaos.system import Shape, System


async def run_seed(seed: int, shape: Shape, faults: int, minutes: float, *, keep: bool) -> Result:
    async def scenario(_result: Result, system: System, attack: Attack) -> None:
        await attack_by_plan(seed, faults, minutes, system, attack)

    return await run(f"seed {seed}", shape, scenario, keep=keep)


async def attack_by_plan(
    seed: int, faults: int, minutes: float, system: System, attack: Attack
) -> None:
    targets = list(system.processes)
    turns = plan.turns(seed, targets, faults, is_root=is_root)
    ends_at = boottime() + minutes * 60
    for turn in turns:
        if boottime() > ends_at:
            break
        await attack.turn(turn)
        what = ", ".join(f"{fault.kind} {fault.target}" for fault in turn.faults)
        say(
            f"seed {seed} R{system.shape.servers} {len(attack.happened)}/{faults} faults, "
            f"{len(system.announced)} outcomes: {what}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of the first run")
    parser.add_argument("--seeds", type=int, default=1, help="how many, one after another")
    parser.add_argument("--servers", default="1,3", help="1, 3, or 1,3 for both in turn")
    parser.add_argument("--faults", type=int, default=50, help="of each run, at most")
    parser.add_argument("--minutes", type=float, default=5.0, help="of each run, at most")
    parser.add_argument("--hosts", type=int, default=200)
    parser.add_argument("--interval", type=float, default=3.0, help="seconds between pings")
    parser.add_argument("--keep", action="store_true", help="the folder of a failed run")
    parser.add_argument("--json", type=Path, help="append each result to this file")
    asked = parser.parse_args()
    sizes = [int(size) for size in asked.servers.split(",")]
    if not is_root:
        say("not root: no isolated servers and no full disks")
    results = []
    for seed in range(asked.seed, asked.seed + asked.seeds):
        servers = sizes[(seed - asked.seed) % len(sizes)]
        shape = Shape(servers=servers, hosts=asked.hosts, interval_seconds=asked.interval)
        result = asyncio.run(run_seed(seed, shape, asked.faults, asked.minutes, keep=asked.keep))
        results.append(result)
        tell_failures(result)
        if asked.json is not None:
            append(asked.json, result)
    say("\n" + table(results))
    return 0 if all(result.is_good for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
