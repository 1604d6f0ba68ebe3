"""What a probe sees and how it is asked: the seam between GPU health (probe) and uptime (ledger)."""

from typing import Any, Protocol

from msgspec import Struct

from bus.contract.messages import GpuState


class GpuSample(Struct, kw_only=True, frozen=True):
    """One GPU at one check, judged by `agentd/health/rules.py`. `uuid` names it for life; `index` only for now."""

    uuid: str
    index: int | None
    name: str
    state: GpuState
    reasons: tuple[str, ...] = ()


class GpuEvent(Struct, kw_only=True, frozen=True):
    """Something worth an incident that does not change a state by itself (an XID that no rule names, for one)."""

    at: float  # CLOCK_BOOTTIME, seconds
    uuid: str | None
    reason: str


class Sample(Struct, kw_only=True, frozen=True):
    """One check of all GPUs.

    `at` is CLOCK_BOOTTIME in seconds, when the check began. `gpus` are those that were found; the ledger
    knows which are expected besides, and `failure` says why they could not be asked at all
    (`driver-not-loaded`, `library-absent`, `hung`, ...): then every expected GPU is down for that reason,
    except for `library-absent` on a host without enrolled GPUs.
    """

    at: float
    gpus: tuple[GpuSample, ...] = ()
    failure: str | None = None
    events: tuple[GpuEvent, ...] = ()


class Probe(Protocol):
    """A source of samples: the real NVML in a child process, or a scenario player."""

    simulated: bool

    async def check(self, expected: tuple[str, ...]) -> Sample:
        """One check. Returns in bounded time, a hung driver included (`hung` is then the failure or reason)."""

    async def details(self) -> list[dict[str, Any]]:
        """Each GPU's details for `gpu-status`: temperature, power, memory, ECC, link, ..."""

    async def close(self) -> None:
        """Ends the child, by force if need be; never waits for a hung driver."""
