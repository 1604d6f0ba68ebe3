"""What a probe sees: the interface between GPU health (probe) and uptime (ledger)."""

from typing import Any, Protocol

from msgspec import Struct

from bus.contract.messages import GpuState, UnopenedGpu


class GpuSample(Struct, kw_only=True, frozen=True):
    """One GPU at one check, judged by `agentd/health/rules.py`.

    `uuid` names it for life; `index` may change at any restart of the driver.
    """

    uuid: str
    index: int | None
    name: str
    state: GpuState
    reasons: tuple[str, ...] = ()


class GpuEvent(Struct, kw_only=True, frozen=True):
    """An event that is an incident and changes no state, such as an XID that no rule names."""

    at: float  # CLOCK_BOOTTIME, seconds
    uuid: str | None
    reason: str


class Sample(Struct, kw_only=True, frozen=True):
    """One check of all GPUs.

    `at` is the CLOCK_BOOTTIME in seconds at which the check began. `gpus` are those that were
    found; the ledger knows which others are expected. `failure` says why no GPU could be asked at
    all (`driver-not-loaded`, `library-absent`, `hung`, ...): every expected GPU is then down for
    that reason. `unopened` are GPUs that have no UUID to read, and therefore no timeline.
    """

    at: float
    gpus: tuple[GpuSample, ...] = ()
    failure: str | None = None
    events: tuple[GpuEvent, ...] = ()
    unopened: tuple[UnopenedGpu, ...] = ()


class Probe(Protocol):
    """A source of samples: the real NVML in a child process, or a scenario player."""

    simulated: bool

    async def check(self, expected: tuple[str, ...]) -> Sample:
        """One check.

        Returns in bounded time, even when the driver hangs; `hung` is then the failure or reason.
        """

    async def details(self) -> list[dict[str, Any]]:
        """Each GPU's details for `gpu-status`: temperature, power, memory, ECC, link, ..."""

    async def close(self) -> None:
        """Ends the child, by force where it must; never waits for a hung driver."""
