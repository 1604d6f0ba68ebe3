"""What NVML says of each GPU, unjudged. The one file that imports pynvml; it runs in the probe's child only.

Standard library and pynvml alone: every import here is memory on every GPU host. Answers are plain
dictionaries with the fields of `agentd.health.Reading`. Any call here may hang; the parent watches.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pynvml as nv

TROUBLE = (
    9,
    10,
    15,
    16,
    999,
)  # return codes that speak of the GPU itself; any other skips the one signal
_ASK_AGAIN_SECONDS = 600.0  # a signal that a GPU does not support is asked for again after this
_REINIT_SHARE = 10.0  # in trouble NVML is opened anew at each check, unless opening takes over a tenth of the time
_RECOVERY_ACTION = 230  # NVML_FI_DEV_GET_GPU_RECOVERY_ACTION
_XID_EVENT = 0x8
SYSFS = Path("/sys/bus/pci/devices")
_MAX_EVENTS = 1000  # a storm of events must not become a hang

Json = dict[str, Any]
NvmlError = nv.NVMLError


class GpuTroubleError(Exception):
    """A call failed in a way that says the GPU itself is in trouble; `code` is NVML's."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Nvml:
    """One opened NVML library."""

    def __init__(self, sysfs: Path = SYSFS) -> None:
        self._sysfs = sysfs
        self._opened = False
        self._opened_at = 0.0
        self._opening_took = 0.0
        self._trouble = False
        self._handles: dict[str, Any] = {}  # by GPU UUID, as enumerated in this check
        self._uuids: dict[int, str] = {}  # by index, within one opening of the library only
        self._named: dict[
            str, tuple[str, str | None]
        ] = {}  # name and PCI address, which never change
        self._unsupported: dict[tuple[str, str], float] = {}
        self._events: Any = None
        self._watched: set[str] = set()

    # ---- opening ----

    def needs_opening(self) -> bool:
        """Not open, or in such trouble that only a new enumeration can show what is there."""
        waited = time.monotonic() - self._opened_at
        return not self._opened or (self._trouble and waited > _REINIT_SHARE * self._opening_took)

    def open(self) -> int | None:
        """Opens the library anew, and with it the enumeration of GPUs. The error's code, or None."""
        self.close()
        begun = time.monotonic()
        try:
            nv.nvmlInit()
        except nv.NVMLError as error:
            return int(error.value)
        self._opened, self._opened_at = True, time.monotonic()
        self._opening_took = self._opened_at - begun
        try:
            self._events = nv.nvmlEventSetCreate()
        except nv.NVMLError:
            self._events = None
        return None

    def close(self) -> None:
        """Gives the library back; handles of before are worth nothing then."""
        if self._opened:
            with contextlib.suppress(nv.NVMLError):
                if self._events is not None:
                    nv.nvmlEventSetFree(self._events)
                nv.nvmlShutdown()
        self._opened = False
        self._events = None
        self._watched.clear()
        self._uuids.clear()
        self._handles.clear()

    # ---- enumerating ----

    def enumerate(self, expected: list[str]) -> tuple[list[str], list[Json]]:
        """UUIDs that can be asked, and readings of those that only answer with an error. Never goes by old indices."""
        self._handles = {}
        failed: dict[str, int] = {}
        nameless = []
        count = nv.nvmlDeviceGetCount()
        for index in range(count):
            try:
                handle = nv.nvmlDeviceGetHandleByIndex(index)
                uuid = nv.nvmlDeviceGetUUID(handle)
                self._handles[uuid] = handle
                self._uuids[index] = uuid
            except nv.NVMLError as error:
                if index in self._uuids:
                    failed[self._uuids[index]] = int(error.value)
                else:
                    nameless.append(int(error.value))
        self._name_the_nameless(expected, failed, nameless)
        self._trouble = bool(failed or nameless or not count or self._absent(expected))
        return list(self._handles), [self._failed(uuid, code) for uuid, code in failed.items()]

    def _absent(self, expected: list[str]) -> list[str]:
        return [
            uuid
            for uuid in dict.fromkeys(u.split("/")[0] for u in expected)
            if uuid not in self._handles
        ]

    def _name_the_nameless(
        self, expected: list[str], failed: dict[str, int], nameless: list[int]
    ) -> None:
        """A lost GPU has no UUID to read: it is the expected one that answers so, or the only one that is missing."""
        absent = [uuid for uuid in self._absent(expected) if uuid not in failed]
        for uuid in absent:
            try:
                nv.nvmlDeviceGetHandleByUUID(uuid.encode())
            except nv.NVMLError as error:
                if int(error.value) in TROUBLE:
                    failed[uuid] = int(error.value)
        left = [uuid for uuid in absent if uuid not in failed]
        if nameless and len(left) == len(nameless):
            failed.update(zip(left, nameless, strict=True))

    def _failed(self, uuid: str, code: int) -> Json:
        index = next((i for i, known in self._uuids.items() if known == uuid), None)
        return {
            "uuid": uuid,
            "index": index,
            "name": self._named.get(uuid, ("", None))[0],
            "error": code,
        }

    # ---- reading ----

    def read(self, uuid: str, *, energy: bool) -> list[Json]:
        """The GPU's signals: one reading, or one for each MIG device in it."""
        handle = self._handles[uuid]
        index = next(i for i, known in self._uuids.items() if known == uuid)
        reading: Json = {"uuid": uuid, "index": index, "name": "", "pci": None}
        try:
            reading["name"], reading["pci"] = self._identity(uuid, handle)
            if self._suspended(reading["pci"]):
                return [reading | {"suspended": True}]
            self._watch(uuid, handle)
            reading |= self._signals(uuid, handle)
            if energy:
                reading["energy_mj"] = self._ask(
                    uuid, "energy", lambda: nv.nvmlDeviceGetTotalEnergyConsumption(handle)
                )
            return self._by_mig_device(uuid, handle, reading) or [reading]
        except GpuTroubleError as error:
            self._trouble = True
            return [reading | {"error": error.code}]

    def _suspended(self, pci: str | None) -> bool:
        """Asked of sysfs, because to ask NVML would wake the GPU."""
        try:
            return (
                pci is not None
                and (self._sysfs / pci / "power/runtime_status").read_text() == "suspended\n"
            )
        except OSError:
            return False

    def _signals(self, uuid: str, handle: Any) -> Json:
        remapped = self._ask(uuid, "remap", lambda: nv.nvmlDeviceGetRemappedRows(handle))
        fabric = self._ask(uuid, "fabric", lambda: _fabric(handle))
        return {
            "recovery_action": self._ask(
                uuid, "recovery", lambda: _field(handle, _RECOVERY_ACTION)
            ),
            "ecc_uncorrected": self._ask(
                uuid, "ecc", lambda: nv.nvmlDeviceGetTotalEccErrors(handle, 1, 0)
            ),
            "remap_pending": None if remapped is None else bool(remapped[2]),
            "remap_failed": None if remapped is None else bool(remapped[3]),
            "throttle": self._ask(uuid, "throttle", lambda: _throttle(handle)),
            "fabric_state": fabric and fabric[0],
            "fabric_status": fabric and fabric[1],
        }

    def _ask(self, uuid: str, signal: str, call: Callable[[], Any]) -> Any:
        """The answer, or None where this GPU does not have the signal; GpuTroubleError where it is in trouble."""
        if self._unsupported.get((uuid, signal), 0.0) > time.monotonic():
            return None
        try:
            return call()
        except nv.NVMLError as error:
            code = int(error.value)
            if code in TROUBLE:
                raise GpuTroubleError(code) from None
            self._unsupported[uuid, signal] = time.monotonic() + _ASK_AGAIN_SECONDS
            return None

    def _identity(self, uuid: str, handle: Any) -> tuple[str, str | None]:
        if uuid not in self._named:
            name = self._ask(uuid, "name", lambda: nv.nvmlDeviceGetName(handle)) or ""
            pci = self._ask(uuid, "pci", lambda: nv.nvmlDeviceGetPciInfo(handle).busId)
            self._named[uuid] = (name, pci and sysfs_address(pci))
        return self._named[uuid]

    def _by_mig_device(self, uuid: str, handle: Any, reading: Json) -> list[Json]:
        """MIG devices share their GPU's health, and are keyed by (GPU UUID, GI, CI)."""
        mode = self._ask(uuid, "mig", lambda: nv.nvmlDeviceGetMigMode(handle))
        if mode is None or mode[0] != 1:
            return []
        devices = []
        for number in range(nv.nvmlDeviceGetMaxMigDeviceCount(handle)):
            try:
                device = nv.nvmlDeviceGetMigDeviceHandleByIndex(handle, number)
                gi, ci = (
                    nv.nvmlDeviceGetGpuInstanceId(device),
                    nv.nvmlDeviceGetComputeInstanceId(device),
                )
            except nv.NVMLError:
                continue  # no device in this place
            devices.append(reading | {"uuid": f"{uuid}/{gi}/{ci}", "gi": gi, "ci": ci})
        return devices

    # ---- XIDs ----

    def _watch(self, uuid: str, handle: Any) -> None:
        if self._events is None or uuid in self._watched:
            return
        self._watched.add(uuid)  # a GPU that refuses is not asked again until NVML is opened anew
        with contextlib.suppress(nv.NVMLError):
            nv.nvmlDeviceRegisterEvents(handle, _XID_EVENT, self._events)

    def xids(self) -> Iterator[tuple[str | None, int]]:
        """The XIDs that have come since the last call."""
        for _ in range(_MAX_EVENTS if self._events is not None else 0):
            try:
                data = nv.nvmlEventSetWait_v2(self._events, 0)
            except nv.NVMLError:
                return  # NVML_ERROR_TIMEOUT: no more; anything else: none to be had
            try:
                uuid = nv.nvmlDeviceGetUUID(data.device)
            except nv.NVMLError:
                uuid = None
            yield uuid, int(data.eventData)

    # ---- details ----

    def details(self, uuid: str) -> Json:
        """All that is worth showing of a GPU; None where it does not say."""
        handle = self._handles[uuid]
        shown: Json = {"uuid": uuid, "driver": _or_none(nv.nvmlSystemGetDriverVersion)}
        for name, call in _DETAILS.items():
            shown[name] = _or_none(lambda: call(handle))  # noqa: B023  # called at once
        shown["name"], shown["pci"] = self._named.get(uuid, ("", None))
        return shown


def sysfs_address(pci: str) -> str:
    """NVML writes 00000000:3B:00.0, sysfs and the kernel log 0000:3b:00(.0)."""
    domain, _, rest = pci.lower().partition(":")
    return f"{domain[-4:]}:{rest}"


def _field(handle: Any, field: int) -> int:
    value = nv.nvmlDeviceGetFieldValues(handle, [field])[0]
    if value.nvmlReturn != nv.NVML_SUCCESS:
        raise nv.NVMLError(value.nvmlReturn)
    return int(value.value.uiVal)


def _throttle(handle: Any) -> int:
    """The clocks' event reasons, under the name that drivers before 535 know as well."""
    return int(nv.nvmlDeviceGetCurrentClocksThrottleReasons(handle))


def _fabric(handle: Any) -> tuple[int, int]:
    info = nv.c_nvmlGpuFabricInfo_t()
    nv.nvmlDeviceGetGpuFabricInfo(handle, nv.byref(info))
    return int(info.state), int(info.status)


def _or_none(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except nv.NVMLError:
        return None


def _processes(handle: Any) -> int:
    compute = nv.nvmlDeviceGetComputeRunningProcesses(handle)
    graphics = _or_none(lambda: nv.nvmlDeviceGetGraphicsRunningProcesses(handle)) or []
    return len({process.pid for process in (*compute, *graphics)})


_DETAILS: dict[str, Callable[[Any], Any]] = {
    "serial": nv.nvmlDeviceGetSerial,
    "temperature_celsius": lambda h: nv.nvmlDeviceGetTemperature(h, nv.NVML_TEMPERATURE_GPU),
    "power_watts": lambda h: nv.nvmlDeviceGetPowerUsage(h) / 1000.0,
    "power_limit_watts": lambda h: nv.nvmlDeviceGetEnforcedPowerLimit(h) / 1000.0,
    "utilization_percent": lambda h: nv.nvmlDeviceGetUtilizationRates(h).gpu,
    "memory_total_bytes": lambda h: nv.nvmlDeviceGetMemoryInfo(h).total,
    "memory_used_bytes": lambda h: nv.nvmlDeviceGetMemoryInfo(h).used,
    "ecc_uncorrected_volatile": lambda h: nv.nvmlDeviceGetTotalEccErrors(h, 1, 0),
    "ecc_uncorrected_aggregate": lambda h: nv.nvmlDeviceGetTotalEccErrors(h, 1, 1),
    "ecc_corrected_volatile": lambda h: nv.nvmlDeviceGetTotalEccErrors(h, 0, 0),
    "rows_remapped": lambda h: sum(nv.nvmlDeviceGetRemappedRows(h)[:2]),
    "pcie_generation": nv.nvmlDeviceGetCurrPcieLinkGeneration,
    "pcie_generation_max": nv.nvmlDeviceGetMaxPcieLinkGeneration,
    "pcie_width": nv.nvmlDeviceGetCurrPcieLinkWidth,
    "pcie_width_max": nv.nvmlDeviceGetMaxPcieLinkWidth,
    "throttle_bits": _throttle,
    "persistence_mode": lambda h: bool(nv.nvmlDeviceGetPersistenceMode(h)),
    "processes": _processes,
}
