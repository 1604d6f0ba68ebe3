"""What NVML says of each GPU, unjudged.

The one file that imports pynvml; it runs in the probe's child only.

Standard library and pynvml alone: every import here is memory on every GPU host. Answers are plain
dictionaries with the fields of `agentd.health.rules.Reading`. Any call here may hang; the parent
watches for that.
"""

import contextlib
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import pynvml as nv

# Return codes that say the GPU itself is in trouble. Any other one only skips the signal that was
# asked for.
GPU_TROUBLE_CODES = (9, 10, 15, 16, 999)
_ASK_AGAIN_SECONDS = 600.0  # a signal that a GPU does not support is asked for again after this
# In trouble NVML is opened anew at each check, unless opening takes more than a tenth of the time.
_REOPEN_SHARE = 10.0
_RECOVERY_ACTION = 230  # NVML_FI_DEV_GET_GPU_RECOVERY_ACTION
_XID_EVENT = 0x8
SYSFS = Path("/sys/bus/pci/devices")
_NVIDIA_VENDOR = "0x10de"
_DISPLAY_CLASS = "0x03"  # display controllers: VGA and 3D
_MAX_EVENTS = 1000  # a storm of events must not become a hang

Json = dict[str, Any]
NvmlError = nv.NVMLError
# What pynvml raises where the library answers with something that it cannot read.
_ODD_ANSWER = (ValueError, TypeError, AttributeError, OverflowError)
_NOT_AVAILABLE = {2**64 - 1, 2**32 - 1}


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
        self.unopened: list[Json] = []  # as of the last enumeration
        self._uuids: dict[int, str] = {}  # by index, within one opening of the library only
        # name and PCI address by GPU UUID; they never change
        self._identities: dict[str, tuple[str, str | None]] = {}
        # (GPU UUID, signal) to the CLOCK_MONOTONIC time before which it is not asked for again
        self._unsupported: dict[tuple[str, str], float] = {}
        self._events: Any = None
        self._registered: set[str] = set()  # GPUs whose events were asked for

    # ---- opening ----

    def needs_opening(self) -> bool:
        """Not open, or in such trouble that only a new enumeration can show what is there."""
        if not self._opened:
            return True
        open_for = time.monotonic() - self._opened_at
        return self._trouble and open_for > _REOPEN_SHARE * self._opening_took

    def open(self) -> int | None:
        """Opens the library anew, and with it the enumeration of GPUs.

        Returns the error's code, or None.
        """
        self.close()
        began = time.monotonic()
        try:
            nv.nvmlInit()
        except nv.NVMLError as error:
            return int(error.value)
        self._opened = True
        self._opened_at = time.monotonic()
        self._opening_took = self._opened_at - began
        try:
            self._events = nv.nvmlEventSetCreate()
        except nv.NVMLError:
            self._events = None
        return None

    def close(self) -> None:
        """Closes the library, which makes all handles invalid."""
        if self._opened:
            with contextlib.suppress(nv.NVMLError):
                if self._events is not None:
                    nv.nvmlEventSetFree(self._events)
                nv.nvmlShutdown()
        self._opened = False
        self._events = None
        self._registered.clear()
        self._uuids.clear()
        self._handles.clear()

    # ---- enumerating ----

    def enumerate(self, expected: list[str]) -> tuple[list[str], list[Json]]:
        """Returns the UUIDs that can be asked, and readings of the GPUs that answer with an error.

        Raises NvmlError where there are GPUs, but none of them can be looked at. Indices of an
        earlier opening are never used: they may have moved.
        """
        self._handles = {}
        failed: dict[str, int] = {}
        unnamed: dict[int, int] = {}  # error codes by index, of GPUs whose UUID cannot be read
        count = nv.nvmlDeviceGetCount()
        for index in range(count):
            try:
                handle = nv.nvmlDeviceGetHandleByIndex(index)
                uuid = nv.nvmlDeviceGetUUID(handle)
            except nv.NVMLError as error:
                code = int(error.value)
                if index in self._uuids:
                    failed[self._uuids[index]] = code
                else:
                    unnamed[index] = code
            else:
                self._handles[uuid] = handle
                self._uuids[index] = uuid
        nameless = list(unnamed.values())
        known = len(failed)
        self._identify_nameless(expected, failed, nameless)
        identified = len(failed) - known
        self.unopened = self._not_opened(unnamed, identified)
        codes = list(failed.values()) or nameless
        says_of_gpus = any(code in GPU_TROUBLE_CODES for code in failed.values())
        if codes and not self._handles and not says_of_gpus:
            raise nv.NVMLError(codes[0])  # there are GPUs, and none of them can be looked at
        self._trouble = bool(failed or nameless or not count or self._absent(expected))
        readings = [self._failed_reading(uuid, code) for uuid, code in failed.items()]
        return list(self._handles), readings

    def _not_opened(self, unnamed: dict[int, int], identified: int) -> list[Json]:
        """The GPUs without a UUID, of which so many turned out to be expected ones."""
        if identified >= len(unnamed):
            return []
        opened = set()
        for handle in self._handles.values():
            pci = _or_none(lambda: nv.nvmlDeviceGetPciInfo(handle).busId)  # noqa: B023  # at once
            if pci:
                opened.add(sysfs_address(pci))
        addresses = unexplained_addresses(self._sysfs, opened)
        are_certain = identified == 0 and len(addresses) == len(unnamed)
        unopened = []
        for number, (index, code) in enumerate(list(unnamed.items())[identified:]):
            pci = addresses[number] if are_certain else None
            unopened.append({"index": index, "code": code, "pci": pci})
        return unopened

    def _absent(self, expected: list[str]) -> list[str]:
        """The expected GPUs that were not enumerated."""
        absent = []
        for name in expected:
            uuid = name.split("/")[0]  # a MIG device is named by its GPU first
            if uuid not in self._handles and uuid not in absent:
                absent.append(uuid)
        return absent

    def _identify_nameless(
        self,
        expected: list[str],
        failed: dict[str, int],
        nameless: list[int],
    ) -> None:
        """Adds to `failed` the GPUs that have no UUID to read, because they are lost.

        Such a GPU is the expected one that answers with that error, or the only one that is
        missing.
        """
        left = []
        for uuid in self._absent(expected):
            if uuid in failed:
                continue
            code = _error_by_uuid(uuid)
            if code in GPU_TROUBLE_CODES:
                failed[uuid] = code
            else:
                left.append(uuid)
        if nameless and len(left) == len(nameless):
            failed.update(zip(left, nameless, strict=True))

    def _index_of(self, uuid: str) -> int | None:
        for index, known in self._uuids.items():
            if known == uuid:
                return index
        return None

    def _failed_reading(self, uuid: str, code: int) -> Json:
        name, _ = self._identities.get(uuid, ("", None))
        return {"uuid": uuid, "index": self._index_of(uuid), "name": name, "error": code}

    # ---- reading ----

    def read(self, uuid: str, *, energy: bool) -> list[Json]:
        """The GPU's signals: one reading, or one for each MIG device in it."""
        handle = self._handles[uuid]
        reading: Json = {"uuid": uuid, "index": self._index_of(uuid), "name": "", "pci": None}
        try:
            reading["name"], reading["pci"] = self._identity(uuid, handle)
            if self._is_suspended(reading["pci"]):
                return [reading | {"suspended": True}]
            self._register_events(uuid, handle)
            reading |= self._signals(uuid, handle)
            if energy:
                reading["energy_mj"] = self._ask(
                    uuid, "energy", lambda: nv.nvmlDeviceGetTotalEnergyConsumption(handle)
                )
            return self._by_mig_device(uuid, handle, reading) or [reading]
        except GpuTroubleError as error:
            self._trouble = True
            return [reading | {"error": error.code}]

    def _is_suspended(self, pci: str | None) -> bool:
        """Read from sysfs, because a call to NVML would wake the GPU."""
        if pci is None:
            return False
        try:
            status = (self._sysfs / pci / "power/runtime_status").read_text()
        except OSError:
            return False
        return status == "suspended\n"

    def _signals(self, uuid: str, handle: Any) -> Json:
        signals: Json = {
            "remap_pending": None,
            "remap_failed": None,
            "fabric_state": None,
            "fabric_status": None,
        }
        remapped = self._ask(uuid, "remap", lambda: nv.nvmlDeviceGetRemappedRows(handle))
        if remapped is not None:
            signals["remap_pending"] = bool(remapped[2])
            signals["remap_failed"] = bool(remapped[3])
        fabric = self._ask(uuid, "fabric", lambda: _fabric(handle))
        if fabric is not None:
            signals["fabric_state"], signals["fabric_status"] = fabric
        signals["recovery_action"] = self._ask(
            uuid, "recovery", lambda: _field(handle, _RECOVERY_ACTION)
        )
        signals["ecc_uncorrected"] = self._ask(
            uuid, "ecc", lambda: _count(nv.nvmlDeviceGetTotalEccErrors(handle, 1, 0))
        )
        signals["throttle"] = self._ask(uuid, "throttle", lambda: _throttle(handle))
        return signals

    def _ask(
        self,
        uuid: str,
        signal: str,
        call: Callable[[], Any],
    ) -> Any:
        """The answer, or None where this GPU does not have the signal. Raises GpuTroubleError."""
        if self._unsupported.get((uuid, signal), 0.0) > time.monotonic():
            return None
        try:
            return call()
        except nv.NVMLError as error:
            code = int(error.value)
            if code in GPU_TROUBLE_CODES:
                raise GpuTroubleError(code) from None
        except _ODD_ANSWER:
            pass  # one field that makes no sense is no reason to lose the GPU
        self._unsupported[uuid, signal] = time.monotonic() + _ASK_AGAIN_SECONDS
        return None

    def _identity(self, uuid: str, handle: Any) -> tuple[str, str | None]:
        """The GPU's name and its PCI address as sysfs spells it."""
        if uuid not in self._identities:
            name = self._ask(uuid, "name", lambda: _text(nv.nvmlDeviceGetName, handle))
            pci = self._ask(uuid, "pci", lambda: nv.nvmlDeviceGetPciInfo(handle).busId)
            if pci:
                pci = sysfs_address(pci)
            self._identities[uuid] = (name or "", pci)
        return self._identities[uuid]

    def _by_mig_device(
        self,
        uuid: str,
        handle: Any,
        reading: Json,
    ) -> list[Json]:
        """MIG devices share their GPU's health, and are keyed by (GPU UUID, GI, CI)."""
        mode = self._ask(uuid, "mig", lambda: nv.nvmlDeviceGetMigMode(handle))
        if mode is None or mode[0] != 1:
            return []
        most = self._ask(uuid, "mig-count", lambda: nv.nvmlDeviceGetMaxMigDeviceCount(handle))
        devices = []
        for number in range(most or 0):
            try:
                device = nv.nvmlDeviceGetMigDeviceHandleByIndex(handle, number)
                gi = nv.nvmlDeviceGetGpuInstanceId(device)
                ci = nv.nvmlDeviceGetComputeInstanceId(device)
            except (nv.NVMLError, *_ODD_ANSWER):
                continue  # there is no device with this number
            devices.append(reading | {"uuid": f"{uuid}/{gi}/{ci}", "gi": gi, "ci": ci})
        return devices

    # ---- XIDs ----

    def _register_events(self, uuid: str, handle: Any) -> None:
        if self._events is None or uuid in self._registered:
            return
        # a GPU that refuses is not asked again until NVML is opened anew
        self._registered.add(uuid)
        with contextlib.suppress(nv.NVMLError):
            nv.nvmlDeviceRegisterEvents(handle, _XID_EVENT, self._events)

    def xids(self) -> Iterator[tuple[str | None, int]]:
        """The XIDs that have come since the last call, with the GPU's UUID where it can be read."""
        if self._events is None:
            return
        for _ in range(_MAX_EVENTS):
            try:
                data = nv.nvmlEventSetWait_v2(self._events, 0)
            except nv.NVMLError:
                # NVML_ERROR_TIMEOUT: there are no more; any other code: there are none to read.
                return
            # Called at once.
            uuid = _or_none(lambda: nv.nvmlDeviceGetUUID(data.device))  # noqa: B023
            yield uuid, int(data.eventData)

    # ---- details ----

    def details(self, uuid: str) -> Json:
        """All that is worth showing of a GPU; None where it does not say."""
        handle = self._handles[uuid]
        shown: Json = {"uuid": uuid, "driver": _or_none(nv.nvmlSystemGetDriverVersion)}
        for name, call in _DETAILS.items():
            shown[name] = _or_none(lambda: call(handle))  # noqa: B023  # called at once
        shown["name"], shown["pci"] = self._identities.get(uuid, ("", None))
        return shown


def sysfs_address(pci: str) -> str:
    """NVML writes 00000000:3B:00.0, sysfs and the kernel log 0000:3b:00(.0)."""
    domain, _, rest = pci.lower().partition(":")
    return f"{domain[-4:]}:{rest}"


def unexplained_addresses(sysfs: Path, opened: Collection[str]) -> list[str]:
    """The PCI addresses of NVIDIA GPUs that are not among those that were opened, in order."""
    addresses = []
    for device in sorted(sysfs.glob("*")):
        try:
            vendor = (device / "vendor").read_text().strip()
            kind = (device / "class").read_text().strip()
        except OSError:
            continue
        is_gpu = vendor == _NVIDIA_VENDOR and kind.startswith(_DISPLAY_CLASS)
        if is_gpu and device.name not in opened:
            addresses.append(device.name)
    return addresses


def _error_by_uuid(uuid: str) -> int | None:
    """The code with which NVML refuses to open the GPU of this UUID; None when it opens it."""
    try:
        nv.nvmlDeviceGetHandleByUUID(uuid.encode())
    except nv.NVMLError as error:
        return int(error.value)
    return None


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
    except (nv.NVMLError, *_ODD_ANSWER):
        return None


def _text(call: Callable[[Any], Any], handle: Any) -> str:
    """A text of NVML, whose bytes are not always UTF-8 (under WSL2): odd ones are shown as such."""
    try:
        return str(call(handle))
    except UnicodeDecodeError as error:
        return bytes(error.object).decode(errors="backslashreplace")


def _count(value: int) -> int | None:
    """A counter; None for the largest number there is, by which NVML says that it has none."""
    if value in _NOT_AVAILABLE:
        return None
    return value


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
    "ecc_uncorrected_volatile": lambda h: _count(nv.nvmlDeviceGetTotalEccErrors(h, 1, 0)),
    "ecc_uncorrected_aggregate": lambda h: _count(nv.nvmlDeviceGetTotalEccErrors(h, 1, 1)),
    "ecc_corrected_volatile": lambda h: _count(nv.nvmlDeviceGetTotalEccErrors(h, 0, 0)),
    "rows_remapped": lambda h: sum(nv.nvmlDeviceGetRemappedRows(h)[:2]),
    "pcie_generation": nv.nvmlDeviceGetCurrPcieLinkGeneration,
    "pcie_generation_max": nv.nvmlDeviceGetMaxPcieLinkGeneration,
    "pcie_width": nv.nvmlDeviceGetCurrPcieLinkWidth,
    "pcie_width_max": nv.nvmlDeviceGetMaxPcieLinkWidth,
    "throttle_bits": _throttle,
    "persistence_mode": lambda h: bool(nv.nvmlDeviceGetPersistenceMode(h)),
    "processes": _processes,
}
