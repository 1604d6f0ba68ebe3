"""What an agent tells of itself besides its uptime: its GPUs in detail, and its own daemon's health."""

from datetime import datetime
from typing import Any, Literal

from msgspec import Struct

from bus.contract.messages import AgentId, Message


class GpuStatus(Message, kw_only=True, frozen=True):
    """`gpuping.gpu-status.<id>`.

    Each GPU carries uuid, index, name, state, reasons and expected, which the ledger knows at once, and what
    the driver told besides; `details_error` says why that part is missing.
    """

    agent_id: AgentId
    gpu_available: bool
    simulated: bool
    gpus: tuple[dict[str, Any], ...]
    reported_at: datetime
    details_error: str | None = None


class LedgerHealth(Struct, kw_only=True, frozen=True):
    """The ledger and its file. `trouble` is the disk's last refusal; the ledger is then in memory only."""

    ledger_id: str
    began_at: datetime
    seconds: float
    intervals: int
    events: int
    file_bytes: int
    trouble: str | None


class BusHealth(Struct, kw_only=True, frozen=True):
    """The connection to the bus."""

    connected: bool
    reconnects: int
    registered: bool


class AgentHealth(Message, kw_only=True, frozen=True):
    """`gpuping.health.<id>`: the daemon itself. `stale` means that no sample came in time."""

    agent_id: AgentId
    status: Literal["ok", "stale"]
    agent_version: str
    boot_id: str
    session_id: str
    simulated: bool
    started_at: datetime
    uptime_seconds: float
    checks: int
    check_interval_seconds: float
    last_sample_age_seconds: float | None
    dropped_samples: int
    ledger: LedgerHealth
    bus: BusHealth
    expected_gpus: tuple[str, ...]
    reported_at: datetime
