"""The checks of `gpuping doctor` that need no bus: disk, clock, GPUs."""

import ctypes
import os
import shutil
import time
from pathlib import Path

from bus.errors import GpupingError
from bus.settings import Settings
from gpuping import extras
from gpuping.output.findings import Finding, failure, note, ok, warning
from gpuping.up.local_agents import has_nvidia_driver

LEAST_FREE_BYTES = 200 * 2**20
AMPLE_FREE_BYTES = 2 * 2**30
SLOW_FSYNC_SECONDS = 0.05
PROBE_SECONDS = 20.0
_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronized


def disk(settings: Settings) -> Finding:
    """The data dir takes writes, has room, and a write reaches the disk soon: each ping's outcome is such a write."""
    folder = next(
        path for path in (settings.data_dir, *settings.data_dir.absolute().parents) if path.exists()
    )
    try:
        seconds = _fsync_seconds(folder / ".doctor")
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return failure(
            "disk",
            f"{folder} cannot be written: {error.strerror}",
            "choose another --data-dir, or give its rights",
        )
    detail = f"{folder}: {free / 2**30:.1f} GiB free, a write is safe after {seconds * 1000:.1f} ms"
    if free < LEAST_FREE_BYTES:
        return failure(
            "disk", detail, "make room: the bus stops taking outcomes when the disk is full"
        )
    if free < AMPLE_FREE_BYTES:
        return warning(
            "disk", detail, "make room: history alone may take up to GPUPING_HISTORY_STREAM_GB"
        )
    if seconds > SLOW_FSYNC_SECONDS:
        return warning(
            "disk", detail, "put the data dir on a faster disk: every outcome waits for it"
        )
    return ok("disk", detail)


def _fsync_seconds(path: Path) -> float:
    began = time.perf_counter()
    with path.open("wb") as file:
        file.write(b"0" * 4096)
        file.flush()
        os.fsync(file.fileno())
    seconds = time.perf_counter() - began
    path.unlink()
    return seconds


def clock(_: Settings) -> Finding:
    """Uptime is counted on a clock that no step moves; labels and due times are wall time, which must be right."""
    buffer = ctypes.create_string_buffer(512)  # a zeroed struct timex: asks, sets nothing
    state = ctypes.CDLL(None, use_errno=True).adjtimex(buffer)
    if state == _TIME_ERROR:
        return warning(
            "clock",
            "the kernel says that the clock is not synchronized",
            "run a time service (chrony, timesyncd)",
        )
    return ok("clock", "synchronized") if state >= 0 else note("clock", "the kernel does not say")


async def gpus(settings: Settings) -> Finding:
    """One check through the probe that agentd uses."""
    if settings.AGENT_SCENARIO:
        return note(
            "gpu",
            f"AGENT_SCENARIO={settings.AGENT_SCENARIO}: the GPUs here are simulated",
            "unset it to use real ones",
        )
    if not has_nvidia_driver():
        return note(
            "gpu",
            "no NVIDIA driver on this machine (libnvidia-ml.so.1); `gpuping up` simulates GPUs here",
            "on a GPU host, install the NVIDIA driver",
        )
    try:
        return await _probed(settings)
    except GpupingError as error:
        return failure("gpu", str(error), "see the NVIDIA driver's own tool: nvidia-smi")


async def _probed(settings: Settings) -> Finding:
    with extras.needed("agentd"):
        from agentd.probe_selection import open_probe
    probe = open_probe(settings, settings.agent_id, None)
    try:
        sample = await probe.check(())
    finally:
        await probe.close()
    if sample.failure:
        return failure(
            "gpu",
            f"the driver does not answer: {sample.failure}",
            "see nvidia-smi and the kernel's log",
        )
    bad = [
        f"GPU {gpu.index} {gpu.state} ({', '.join(gpu.reasons)})"
        for gpu in sample.gpus
        if gpu.state != "up"
    ]
    if bad:
        return warning("gpu", "; ".join(bad), "see docs/troubleshooting.md for each reason")
    return ok(
        "gpu", f"{len(sample.gpus)} up: {', '.join(sorted({gpu.name for gpu in sample.gpus}))}"
    )
