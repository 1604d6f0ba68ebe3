"""When a GPU is up: every rule in one place, as data, each with its source.

Pure: what NVML said comes in as `Reading`s, what it means goes out. What a single check cannot show
(an XID holds until recovery, thermal slowdown counts over ten minutes) is in
`agentd/health/judgement.py`.
"""

import tomllib
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import msgspec
from msgspec import Struct

from bus.contract.messages import GpuState

# Sources, by the names that the rules below use.
DCGM = "NVIDIA/DCGM modules/health"
GPUD = "leptonai/gpud components/accelerator/nvidia"
PLUGIN = "NVIDIA/k8s-device-plugin internal/rm/health.go"
GCM = "facebookresearch/gcm gcm/health_checks"
CATALOG = "NVIDIA XID catalog (docs.nvidia.com/deploy/xid-errors)"
NVML = "NVML API reference (nvml.h)"

THERMAL_WINDOW_SECONDS = 600.0
THERMAL_LIMIT_SECONDS = 360.0
THROTTLE_BITS = {  # nvmlClocksEventReasons; power caps are normal
    0x1: "idle",
    0x2: "application-clocks",
    0x4: "software-power-cap",
    0x8: "hardware-slowdown",
    0x10: "sync-boost",
    0x20: "software-thermal",
    0x40: "hardware-thermal",
    0x80: "power-brake",
    0x100: "display-clocks",
}
_THERMAL_BITS = 0x20 | 0x40
_FABRIC_COMPLETED = 3


class Reading(Struct, kw_only=True, frozen=True):
    """What one check read of one GPU (or MIG device), unjudged.

    A field is None where the GPU does not support it, or it was not asked for.

    `error` is the NVML return code of a call that says the GPU itself is in trouble. `unread` says
    why nothing at all is known of it, which does not count against it. `pci` is the address as
    sysfs spells it; `gi` and `ci` are set for a MIG device, whose `uuid` is then
    `<GPU UUID>/<GI>/<CI>`.
    """

    uuid: str
    index: int | None = None
    name: str = ""
    pci: str | None = None
    gi: int | None = None
    ci: int | None = None
    error: int | None = None
    hung: bool = False
    unread: str | None = None
    suspended: bool = False
    recovery_action: int | None = None
    remap_failed: bool | None = None
    remap_pending: bool | None = None
    ecc_uncorrected: int | None = None
    throttle: int | None = None  # bits of the clocks' event reasons
    fabric_state: int | None = None
    fabric_status: int | None = None
    energy_mj: int | None = None  # since the driver was loaded; a GPU reset takes it back to zero

    @property
    def gpu_uuid(self) -> str:
        """The physical GPU's UUID, of a MIG device too."""
        return gpu_of(self.uuid)

    @property
    def is_thermally_slowed(self) -> bool:
        """Whether the GPU lowers its clocks at this moment because of heat."""
        if self.throttle is None:
            return False
        return self.throttle & _THERMAL_BITS != 0


def gpu_of(uuid: str) -> str:
    """The physical GPU that a UUID, or a MIG device's `<GPU UUID>/<GI>/<CI>`, belongs to."""
    return uuid.partition("/")[0]


class Rule(NamedTuple):
    """Where `holds` returns true, the GPU is in `state` for `reason`.

    `source` is where the rule comes from.
    """

    reason: str
    state: GpuState
    holds: Callable[[Reading], bool]
    source: str


def _error(code: int) -> Callable[[Reading], bool]:
    return lambda reading: reading.error == code


def _action(*codes: int) -> Callable[[Reading], bool]:
    return lambda reading: reading.recovery_action in codes


# Every rule that one reading decides, worst first. A sample's reasons are in this order.
RULES: tuple[Rule, ...] = (
    Rule(
        "hung",
        "down",
        lambda r: r.hung,
        "a call that never returns is evidence; NVIDIA/NVSentinel#1576",
    ),
    Rule(
        "lost",
        "down",
        _error(15),
        f"{NVML}: NVML_ERROR_GPU_IS_LOST; {GCM}; {DCGM}",
    ),
    Rule(
        "reset-required",
        "down",
        _error(16),
        f"{NVML}: NVML_ERROR_RESET_REQUIRED; {GPUD}",
    ),
    Rule(
        "timeout",
        "down",
        _error(10),
        f"{NVML}: NVML_ERROR_TIMEOUT; {GCM}",
    ),
    Rule(
        "unknown-error",
        "down",
        _error(999),
        f"{NVML}: NVML_ERROR_UNKNOWN; {PLUGIN}",
    ),
    Rule(
        "insufficient-power",
        "down",
        _error(8),
        f"{NVML}: NVML_ERROR_INSUFFICIENT_POWER, no power cable attached",
    ),
    Rule(
        "irq-issue",
        "down",
        _error(11),
        f"{NVML}: NVML_ERROR_IRQ_ISSUE, the driver gets no interrupts from it",
    ),
    Rule(
        "driver-not-loaded",
        "down",
        _error(9),
        f"{NVML}: NVML_ERROR_DRIVER_NOT_LOADED; {GCM}",
    ),
    Rule(
        "recovery-reset",
        "down",
        _action(1, 6),
        f"{NVML}: NVML_GPU_RECOVERY_ACTION_GPU_RESET, BUS_RESET",
    ),
    Rule(
        "recovery-reboot",
        "down",
        _action(2, 7),
        f"{NVML}: NVML_GPU_RECOVERY_ACTION_NODE_REBOOT, SYSTEM_REBOOT",
    ),
    Rule(
        "recovery-drain-and-reset",
        "down",
        _action(4),
        f"{NVML}: NVML_GPU_RECOVERY_ACTION_DRAIN_AND_RESET",
    ),
    Rule(
        "ecc",
        "down",
        lambda r: r.ecc_uncorrected is not None and r.ecc_uncorrected > 0,
        f"{DCGM}: volatile double-bit errors; {GCM}",
    ),
    Rule(
        "remap-failed",
        "down",
        lambda r: r.remap_failed is True,
        f"{GPUD}/remapped-rows; {DCGM}",
    ),
    Rule(
        "recovery-drain-p2p",
        "degraded",
        _action(3, 5),
        f"{NVML}: NVML_GPU_RECOVERY_ACTION_DRAIN_P2P, IMEX_DOMAIN",
    ),
    Rule(
        "remap-pending",
        "degraded",
        lambda r: r.remap_pending is True,
        f"{GPUD}/remapped-rows; NVIDIA/DCGM#263",
    ),
    Rule(
        "fabric",
        "degraded",
        lambda r: r.fabric_state == _FABRIC_COMPLETED and r.fabric_status not in (None, 0),
        f"{GPUD}/fabric-manager; {NVML}: nvmlGpuFabricInfo_t.status",
    ),
)
THERMAL = Rule(
    "thermal",
    "degraded",
    lambda r: r.is_thermally_slowed,
    f"{GPUD}/hw-slowdown: 6 of the last 10 minutes",
)

_ERRORS_OF_GPUS = frozenset({8, 9, 10, 11, 15, 16, 999})

# Failures of the whole library or driver: every expected GPU is down for them (NVML return codes of
# nvmlInit).
FAILURES: dict[int, str] = {
    4: "permission",
    9: "driver-not-loaded",
    10: "timeout",
    12: "library-absent",
    15: "lost",
    16: "reset-required",
    18: "driver-mismatch",
    999: "unknown-error",
}

XidEffect = Literal["down", "degraded", "none", "incident"]
XidTable = Mapping[int, XidEffect]


class XidRule(NamedTuple):
    """The effect of an XID until recovery.

    `down` and `degraded` are states of the GPU. `incident`: the XID is reported and changes no
    state. `none`: it is an application's error and is not reported.
    """

    effect: XidEffect
    meaning: str
    source: str


XIDS: dict[int, XidRule] = {
    48: XidRule("down", "double-bit ECC error", f"{CATALOG}; {PLUGIN}"),
    62: XidRule("down", "internal micro-controller halt", f"{CATALOG}; {GPUD}"),
    64: XidRule("down", "row remapper failure", f"{CATALOG}; {GPUD}"),
    79: XidRule("down", "GPU has fallen off the bus", f"{CATALOG}; {PLUGIN}; {GPUD}"),
    95: XidRule("down", "uncontained memory error", f"{CATALOG}; {GPUD}"),
    119: XidRule("down", "GSP RPC timeout", f"{CATALOG}; {GPUD}"),
    120: XidRule("down", "GSP error", f"{CATALOG}; {GPUD}"),
    140: XidRule("down", "unrecovered ECC error", f"{CATALOG}; {GPUD}"),
    74: XidRule("degraded", "NVLink error", f"{CATALOG}; {GPUD}"),
    94: XidRule("degraded", "contained memory error", f"{CATALOG}; {GPUD}"),
    13: XidRule("none", "graphics engine exception", f"{CATALOG}; {PLUGIN}"),
    31: XidRule("none", "memory page fault", f"{CATALOG}; {PLUGIN}"),
    43: XidRule("none", "GPU stopped processing", f"{CATALOG}; {PLUGIN}"),
    45: XidRule("none", "preemptive cleanup", f"{CATALOG}; {PLUGIN}"),
    68: XidRule("none", "video processor exception", f"{CATALOG}; {PLUGIN}"),
    109: XidRule("none", "context switch timeout", f"{CATALOG}; {PLUGIN}"),
}
DEFAULT_XIDS: XidTable = {xid: rule.effect for xid, rule in XIDS.items()}


def failure_of(code: int) -> str:
    """The reason for which no GPU could be asked, from the NVML return code."""
    return FAILURES.get(code, f"nvml-error-{code}")


def throttle_names(bits: int | None) -> list[str] | None:
    """The reasons for the present clocks, in words. Returns None for None."""
    if bits is None:
        return None
    return [name for bit, name in THROTTLE_BITS.items() if bits & bit]


def why_unknown(reading: Reading) -> str | None:
    """Why the GPU's state is unknown: nothing was read, or an error that does not concern the GPU.

    Returns None where the reading tells the state.
    """
    if reading.unread:
        return reading.unread
    if reading.error is None or reading.error in _ERRORS_OF_GPUS:
        return None
    return failure_of(reading.error)


def xid_table(text: str) -> XidTable:
    """The built-in table, changed by an operator's TOML: `[xid]`, then `31 = "degraded"` and so on.

    Effects: down, degraded, incident, none. Raises ValueError that says which line and what was
    expected.
    """
    tables = msgspec.convert(tomllib.loads(text), dict[Literal["xid"], dict[str, XidEffect]])
    table = dict(DEFAULT_XIDS)
    for number, effect in tables.get("xid", {}).items():
        is_number = number.isascii() and number.isdigit()
        if not is_number or len(number) > 4:
            raise ValueError(f"xid {number!r}: expected a number of at most four digits")
        table[int(number)] = effect
    return table


def effect_of(xid: int, table: XidTable) -> XidEffect:
    """The effect of the XID; one that the table does not have is only recorded."""
    return table.get(xid, "incident")


# The state for each reason that a rule gives.
STATE_OF_REASON: dict[str, GpuState] = {rule.reason: rule.state for rule in (*RULES, THERMAL)}
