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
    tree = _tree(pid)
    before, begun = {p: _cpu_seconds(p) for p in tree}, time.monotonic()
    await asyncio.sleep(seconds)
    elapsed = time.monotonic() - begun
    cpu = {p: (_cpu_seconds(p) - before[p]) / elapsed * 100.0 for p in tree}
    memory = {p: _pss_megabytes(p) for p in tree}
    return {
        "agentd_pss_megabytes": round(sum(memory.values()), 1),
        "agentd_parent_pss_megabytes": round(memory[pid], 1),
        "agentd_child_pss_megabytes": round(sum(memory.values()) - memory[pid], 1),
        "agentd_alone_megabytes": round(_alone_megabytes(tree), 1),
        "agentd_cpu_percent": round(sum(cpu.values()), 3),
        "agentd_parent_cpu_percent": round(cpu[pid], 3),
        "agentd_child_cpu_percent": round(sum(cpu.values()) - cpu[pid], 3),
        "agentd_processes": len(tree),
        "agentd_threads": sum(len(list(Path(f"/proc/{p}/task").iterdir())) for p in tree),
    }


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
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(p for child in children for p in _tree(int(child)))]


def _pss_megabytes(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"no Pss in /proc/{pid}/smaps_rollup")


def _alone_megabytes(tree: list[int]) -> float:
    """As on a host without any other Python: pages shared within the tree count whole."""
    anonymous, files = 0, dict[tuple[str, str], int]()
    for pid in tree:
        mapping = ("", "")
        resident = 0
        for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
            first, *rest = line.split()
            if not first.endswith(":"):
                mapping = (rest[3], rest[1])  # inode, offset
            elif first == "Rss:":
                resident = int(rest[0])
            elif first == "Anonymous:":
                anonymous += int(rest[0])
                files[mapping] = max(files.get(mapping, 0), resident - int(rest[0]))
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
