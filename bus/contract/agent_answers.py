"""What an agent answers besides its uptime report: its GPUs in detail, and its own health."""

from datetime import datetime
from typing import Any, Literal

import msgspec
from msgspec import Struct

from bus.contract.messages import AgentId, GpuState, Index, Message
from bus.errors import BadMessageError


class GpuStatus(Message, kw_only=True, frozen=True):
    """The answer on `gpuping.gpu-status.<id>`.

    Each GPU has uuid, index, name, state, reasons and expected from the ledger, and further details
    from the driver. `details_error` says why the driver's details are missing; it is None when they
    are there. `failure` says why no GPU can be looked at now; it is None when they can.
    """

    agent_id: AgentId
    gpu_available: bool
    simulated: bool
    gpus: tuple[dict[str, Any], ...]
    reported_at: datetime
    details_error: str | None = None
    failure: str | None = None


class GpuDetails(Struct, kw_only=True, frozen=True):
    """The fields of each GPU in a GpuStatus, and their types.

    The driver's readings are None where it does not give them, and absent where it was not asked.
    A newer agent may send further fields, which are not checked.
    """

    uuid: str
    index: Index | None
    name: str
    state: GpuState
    reasons: tuple[str, ...]
    expected: bool
    driver: str | None = None
    serial: str | None = None
    pci: str | None = None
    temperature_celsius: float | None = None
    power_watts: float | None = None
    power_limit_watts: float | None = None
    utilization_percent: float | None = None
    memory_total_bytes: float | None = None
    memory_used_bytes: float | None = None
    ecc_uncorrected_volatile: float | None = None
    ecc_uncorrected_aggregate: float | None = None
    ecc_corrected_volatile: float | None = None
    rows_remapped: float | None = None
    pcie_generation: float | None = None
    pcie_generation_max: float | None = None
    pcie_width: float | None = None
    pcie_width_max: float | None = None
    throttle_bits: float | None = None
    throttle_reasons: tuple[str, ...] | None = None
    persistence_mode: bool | None = None
    processes: float | None = None
    simulated: bool | None = None
    xids: dict[str, int] | None = None


def check_gpus(status: GpuStatus) -> None:
    """Raises BadMessageError unless every GPU is as GpuDetails says."""
    try:
        msgspec.convert(status.gpus, tuple[GpuDetails, ...])
    except msgspec.ValidationError as error:
        raise BadMessageError(f"GpuStatus: gpus: {error}") from None


class LedgerHealth(Struct, kw_only=True, frozen=True):
    """The ledger and its file.

    `trouble` is the last error of the disk; the ledger is kept in memory only until it is None
    again.
    """

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
    refused_replies: int = 0  # questions that were dropped: their reply subject is no inbox
    credentials_expire_at: datetime | None = None  # they are renewed after half of their time


class AgentHealth(Message, kw_only=True, frozen=True):
    """The answer on `gpuping.health.<id>`.

    Status `stale`: no sample of the GPUs came in time. Status `failed`: samples come, but no GPU
    can be looked at; `failure` says why.
    """

    agent_id: AgentId
    status: Literal["ok", "stale", "failed"]
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
    failure: str | None = None
