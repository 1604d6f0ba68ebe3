"""The checks that need no bus: disk, clock, GPUs."""

import ctypes
import os
import shutil
import tempfile
import time
from pathlib import Path

from bus.errors import GpupingError
from bus.identity import claims, credentials
from bus.settings import Settings
from gpuping import extras
from gpuping.output.findings import Finding, failure, note, ok, warning
from gpuping.up.local_agents import has_nvidia_driver

LEAST_FREE_BYTES = 200 * 2**20
AMPLE_FREE_BYTES = 2 * 2**30
SHARE_OF_DISK = 0.75  # of what is free: as much a nats-server gives to streams
SLOW_FSYNC_SECONDS = 0.05
EXPIRY_WARNING_DAYS = 21.0  # agents of 90 days renew theirs long before
# adjtimex(2): its answer when the clock is not synchronized.
_TIME_ERROR = 5
# The size of its `struct timex`, with a margin.
_TIMEX_BYTES = 512


def disk(settings: Settings) -> Finding:
    """Whether the data dir takes writes, has room, and syncs quickly.

    Every outcome is one synced write.
    """
    folder = _existing_folder(settings.data_dir)
    try:
        sync_seconds = _fsync_seconds(folder)
        free_bytes = shutil.disk_usage(folder).free
    except OSError as error:
        detail = f"{folder} cannot be written: {error.strerror}"
        return failure("disk", detail, "choose another --data-dir, or give its rights")
    gibibytes = free_bytes / 2**30
    milliseconds = sync_seconds * 1000
    detail = f"{folder}: {gibibytes:.1f} GiB free, a write is safe after {milliseconds:.1f} ms"
    if free_bytes < LEAST_FREE_BYTES:
        advice = "make room: the bus stops taking outcomes when the disk is full"
        return failure("disk", detail, advice)
    if free_bytes < AMPLE_FREE_BYTES:
        advice = "make room: history alone may take up to GPUPING_HISTORY_STREAM_GB"
        return warning("disk", detail, advice)
    reserved_bytes = settings.GPUPING_HISTORY_STREAM_GB * 2**30
    if free_bytes * SHARE_OF_DISK < reserved_bytes:
        advice = (
            "nothing has to be done: a history that is made here keeps what fits; "
            "GPUPING_HISTORY_STREAM_GB is its limit"
        )
        return note("disk", detail, advice)
    if sync_seconds > SLOW_FSYNC_SECONDS:
        advice = "put the data dir on a faster disk: every outcome waits for it"
        return warning("disk", detail, advice)
    return ok("disk", detail)


def _existing_folder(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists, where it would be made."""
    candidate = folder
    while not candidate.exists():
        candidate = candidate.absolute().parent
    return candidate


def _fsync_seconds(folder: Path) -> float:
    """How long a write takes to be safe. The file has no name that somebody could guess."""
    began = time.perf_counter()
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor-") as file:
        file.write(b"0" * 4096)
        file.flush()
        os.fsync(file.fileno())
        return time.perf_counter() - began


def clock() -> Finding:
    """Whether the kernel calls the wall clock synchronized.

    Uptime is counted on a clock that cannot be set, but labels and due times are wall time.
    """
    zeroed_timex = ctypes.create_string_buffer(_TIMEX_BYTES)  # asks, and sets nothing
    state = ctypes.CDLL(None, use_errno=True).adjtimex(zeroed_timex)
    if state == _TIME_ERROR:
        return warning(
            "clock",
            "the kernel says that the clock is not synchronized",
            "run a time service (chrony, timesyncd)",
        )
    if state < 0:
        return note("clock", "the kernel does not say")
    return ok("clock", "synchronized")


def expiring_credentials(settings: Settings) -> Finding:
    """Whether credentials that this machine holds expire soon.

    They are NATS_CREDS, a file or a folder, and those that the data dir keeps. Agents renew theirs
    by themselves at half their time; those of services are made anew by an operator.
    """
    now = time.time()
    expired = []
    soon = []
    count = 0
    for path in _credential_files(settings):
        try:
            expires_at = claims.decode(credentials.read(path).token).expires_at
        except GpupingError:
            continue  # whoever uses the file says what is wrong with it
        count += 1
        if not expires_at:
            continue
        days = (expires_at - now) / 86_400
        if days < 0:
            expired.append(path.name)
        elif days < EXPIRY_WARNING_DAYS:
            soon.append(f"{path.name} in {days:.0f} days")
    advice = "make new ones: `gpuping creds service ROLE`, or `gpuping creds agent ID`"
    if expired:
        return failure("credentials", f"expired: {', '.join(expired)}", advice)
    if soon:
        return warning("credentials", f"they expire soon: {', '.join(soon)}", advice)
    if not count:
        return note("credentials", "none are kept here")
    return ok("credentials", f"{count} here, none expires within {EXPIRY_WARNING_DAYS:.0f} days")


def _credential_files(settings: Settings) -> list[Path]:
    """Files that can be read; others are for another user's doctor."""
    folders = [settings.data_dir / "identity", settings.agent_state_dir]
    found = []
    if settings.NATS_CREDS:
        given = Path(settings.NATS_CREDS).expanduser()
        if given.is_dir():
            folders.append(given)
        else:
            found.append(given)
    for folder in folders:
        if os.access(folder, os.R_OK | os.X_OK) and folder.is_dir():
            found += sorted(folder.rglob("*.creds"))
    return [path for path in dict.fromkeys(found) if os.access(path, os.R_OK)]


async def gpus(settings: Settings) -> Finding:
    """Whether the GPUs are up, by one check through the probe that agentd uses."""
    if settings.AGENT_SCENARIO:
        return note(
            "gpu",
            f"AGENT_SCENARIO={settings.AGENT_SCENARIO}: the GPUs here are simulated",
            "unset it to use real ones",
        )
    if not has_nvidia_driver():
        return note(
            "gpu",
            "no NVIDIA driver on this machine (libnvidia-ml.so.1); "
            "`gpuping up` simulates GPUs here",
            "on a GPU host, install the NVIDIA driver",
        )
    try:
        return await _probe_gpus(settings)
    except GpupingError as error:
        return failure("gpu", str(error), "see the NVIDIA driver's own tool: nvidia-smi")


async def _probe_gpus(settings: Settings) -> Finding:
    with extras.needed("agentd"):
        from agentd.probe_selection import open_probe
    probe = open_probe(settings, settings.agent_id, None)
    try:
        sample = await probe.check(())
    finally:
        await probe.close()
    if sample.failure:
        detail = f"the driver does not answer: {sample.failure}"
        return failure("gpu", detail, "see nvidia-smi and the kernel's log")
    not_up = []
    for gpu in sample.gpus:
        if gpu.state != "up":
            not_up.append(f"GPU {gpu.index} {gpu.state} ({', '.join(gpu.reasons)})")
    if not_up:
        return warning("gpu", "; ".join(not_up), "see docs/troubleshooting.md for each reason")
    names = sorted({gpu.name for gpu in sample.gpus})
    return ok("gpu", f"{len(sample.gpus)} up: {', '.join(names)}")
