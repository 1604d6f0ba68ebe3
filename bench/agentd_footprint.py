"""What agentd costs a GPU host: memory and CPU of its whole process tree, at rest.

A real `python -m agentd` checks eight GPUs of the C stand-in every five seconds through the real
pynvml, on a real bus with a real scheduler that has registered and pinged it. Memory is the
proportional set size (pages that processes share count in shares), CPU the kernel's own
nanoseconds, both summed over the tree.

python -m bench.agentd_footprint --seconds 60
"""

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import scheduler.service
from bus import settings
from bus.transport import embedded_server
from tests import standin

GPUS = 8
CHECK_INTERVAL = 5.0
SETTLE_SECONDS = 8.0  # registration, the first ping and the first checks are over by then


async def measure(seconds: float = 60.0) -> dict[str, float]:
    """Flat keys with their units; empty where there is no C compiler to build the stand-in with."""
    if shutil.which("cc") is None:
        return {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        async with embedded_server.running(folder / "bus", port=0) as server:
            loaded = settings.load({}, NATS_URL=server.url, GPUPING_DATA_DIR=str(folder / "data"))
            async with scheduler.service.running(loaded):
                with _agentd(folder, server.url) as pid:
                    await asyncio.sleep(SETTLE_SECONDS)
                    return await _observe(pid, seconds)


async def _observe(pid: int, seconds: float) -> dict[str, float]:
    """The process `pid` is the parent; every other process of its tree is the probe's child."""
    tree = _tree(pid)
    cpu_before = {process: _cpu_seconds(process) for process in tree}
    began = time.monotonic()
    await asyncio.sleep(seconds)
    elapsed = time.monotonic() - began
    cpu_percent = {}
    for process in tree:
        used = _cpu_seconds(process) - cpu_before[process]
        cpu_percent[process] = 100.0 * used / elapsed
    memory = {process: _pss_megabytes(process) for process in tree}
    cpu_of_all = sum(cpu_percent.values())
    memory_of_all = sum(memory.values())
    return {
        "agentd_pss_megabytes": round(memory_of_all, 1),
        "agentd_parent_pss_megabytes": round(memory[pid], 1),
        "agentd_child_pss_megabytes": round(memory_of_all - memory[pid], 1),
        "agentd_alone_megabytes": round(_alone_megabytes(tree), 1),
        "agentd_cpu_percent": round(cpu_of_all, 3),
        "agentd_parent_cpu_percent": round(cpu_percent[pid], 3),
        "agentd_child_cpu_percent": round(cpu_of_all - cpu_percent[pid], 3),
        "agentd_processes": len(tree),
        "agentd_threads": sum(_threads(process) for process in tree),
    }


def _threads(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


@contextmanager
def _agentd(folder: Path, nats_url: str) -> Iterator[int]:
    stage = standin.Stage(standin.build(folder / "standin"), folder, f"gpus = {GPUS}\n")
    environ = stage.environ(
        NATS_URL=nats_url,
        AGENT_ID="footprint",
        AGENT_STATE_DIR=str(folder / "state"),
        AGENT_GPU_CHECK_INTERVAL_SECONDS=str(CHECK_INTERVAL),
    )
    root = Path(__file__).parent.parent
    with (folder / "agentd.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "agentd"], cwd=root, env=environ, stderr=log
        )
        try:
            yield process.pid
            if process.poll() is not None:
                raise RuntimeError(f"agentd ended: {(folder / 'agentd.log').read_text()}")
        finally:
            process.terminate()
            process.wait(10)


def _tree(pid: int) -> list[int]:
    """The process and all its descendants, itself first."""
    tree = [pid]
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        tree += _tree(int(child))
    return tree


def _pss_megabytes(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"no Pss in /proc/{pid}/smaps_rollup")


def _alone_megabytes(tree: list[int]) -> float:
    """As on a host without any other Python: pages shared within the tree count whole."""
    anonymous = 0
    files: dict[tuple[str, str], int] = {}  # the largest resident part of each mapping of a file
    for pid in tree:
        mapping = ("", "")
        resident = 0
        for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
            first, *rest = line.split()
            if not first.endswith(":"):
                offset, inode = rest[1], rest[3]
                mapping = (inode, offset)
            elif first == "Rss:":
                resident = int(rest[0])
            elif first == "Anonymous:":
                own = int(rest[0])
                anonymous += own
                files[mapping] = max(files.get(mapping, 0), resident - own)
    return (anonymous + sum(files.values())) / 1024


def _cpu_seconds(pid: int) -> float:
    """All its threads, in the scheduler's nanoseconds."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=20.0 if os.environ.get("QUICK") else 60.0)
    print(json.dumps(asyncio.run(measure(parser.parse_args().seconds)), indent=2))


if __name__ == "__main__":
    main()
