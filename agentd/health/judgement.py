"""From readings to verdicts, over time: the health rules applied, with what must be remembered between checks.

Pure. An XID holds until recovery, and heat counts over ten minutes: one reading tells neither. Both are
carried in `HealthMemory`, which the probe keeps across restarts of agentd (within one boot: a reboot resets GPUs).
"""

from collections.abc import Sequence
from typing import NamedTuple

from msgspec import Struct, structs

from agentd.health.rules import (
    RULES,
    THERMAL,
    THERMAL_LIMIT_SECONDS,
    THERMAL_WINDOW_SECONDS,
    Reading,
    XidTable,
    effect_of,
    why_unknown,
)
from agentd.samples import GpuEvent, GpuSample
from bus.contract.messages import GpuState

_SAME_XID_SECONDS = 10.0  # event set and kernel log tell of the same XID at almost the same time
_CHECK_REACH_SECONDS = (
    60.0  # a slowdown seen now is taken to have lasted since the check before, but no longer
)
_AWAY_ERRORS = frozenset({9, 15, 16})  # driver not loaded, GPU lost, reset required
_RESETTING_FAILURES = frozenset({"driver-not-loaded"})


class Xid(Struct, frozen=True):
    """An XID of a physical GPU (None: one that we cannot name), at a CLOCK_BOOTTIME in seconds."""

    uuid: str | None
    number: int
    at: float


class Latch(Struct, frozen=True, kw_only=True):
    """An XID that holds until recovery.

    `away`: since then the GPU was seen lost, gone or in need of a reset. `energy_mj`: its energy counter when
    first read since then; a lower one later means that it was reset.
    """

    uuid: str
    xid: int
    since: float
    away: bool = False
    energy_mj: int | None = None


class HealthMemory(Struct, frozen=True, kw_only=True):
    """What health must remember. `boot_id` bounds it.

    `kernel_log` is the last message of the log that was read, `addresses` the GPU's UUID at each PCI address: the
    log names GPUs by that, and one that fell off the bus no longer tells it.
    """

    boot_id: str = ""
    kernel_log: int | None = None
    addresses: dict[str, str] = {}
    latches: tuple[Latch, ...] = ()
    recent: tuple[Xid, ...] = ()
    heat: dict[str, tuple[tuple[float, float], ...]] = {}
    checked_at: float | None = None


class Judgement(NamedTuple):
    """The verdict on one check."""

    gpus: tuple[GpuSample, ...]
    events: tuple[GpuEvent, ...]
    memory: HealthMemory


def judge(
    readings: Sequence[Reading],
    xids: Sequence[Xid],
    memory: HealthMemory,
    now: float,
    table: XidTable,
    failure: str | None = None,
) -> Judgement:
    """Judges one check at `now`. With a `failure` nothing was read, and `readings` says nothing of absent GPUs."""
    fresh, recent = _fresh(xids, memory.recent, now)
    latches = _latched(memory.latches, fresh, table)
    latches = tuple(
        kept for latch in latches if (kept := _after(latch, readings, failure)) is not None
    )
    heat = memory.heat if failure else {r.uuid: _heat(r, memory, now) for r in readings}
    gpus = tuple(
        _sample(reading, latches, heat.get(reading.uuid, ()), table) for reading in readings
    )
    events = tuple(
        GpuEvent(at=x.at, uuid=x.uuid, reason=f"xid:{x.number}")
        for x in fresh
        if _is_incident(x, table)
    )
    remembered = structs.replace(memory, latches=latches, recent=recent, heat=heat, checked_at=now)
    return Judgement(gpus, events, remembered)


def cleared(memory: HealthMemory, uuid: str | None = None) -> HealthMemory:
    """The operator says that this GPU (None: all) has recovered."""
    return structs.replace(
        memory, latches=tuple(x for x in memory.latches if uuid not in (None, x.uuid))
    )


def _fresh(
    xids: Sequence[Xid], recent: tuple[Xid, ...], now: float
) -> tuple[list[Xid], tuple[Xid, ...]]:
    """Those not told before, and what to compare the next ones with."""
    known = {(x.uuid, x.number): x for x in recent if now - x.at < _SAME_XID_SECONDS}
    fresh = []
    for xid in sorted(xids, key=lambda x: x.at):
        before = known.get((xid.uuid, xid.number))
        if before is None or xid.at - before.at >= _SAME_XID_SECONDS:
            fresh.append(xid)
            known[xid.uuid, xid.number] = xid
    return fresh, tuple(known.values())


def _is_incident(xid: Xid, table: XidTable) -> bool:
    """Recorded only; so is what should count against a GPU that we cannot name."""
    effect = effect_of(xid.number, table)
    return effect == "incident" or (xid.uuid is None and effect != "none")


def _latched(latches: tuple[Latch, ...], fresh: list[Xid], table: XidTable) -> tuple[Latch, ...]:
    """An XID that comes again starts anew: what was seen of a recovery was of the one before."""
    held = {
        (latch.uuid, latch.xid): latch
        for latch in latches
        if effect_of(latch.xid, table) in ("down", "degraded")
    }
    for xid in fresh:
        if xid.uuid is not None and effect_of(xid.number, table) in ("down", "degraded"):
            held[xid.uuid, xid.number] = Latch(uuid=xid.uuid, xid=xid.number, since=xid.at)
    return tuple(held.values())


def _after(latch: Latch, readings: Sequence[Reading], failure: str | None) -> Latch | None:
    """The latch after this check: gone once the GPU was seen away, or asking for recovery, and is well again."""
    if failure:
        return structs.replace(latch, away=True) if failure in _RESETTING_FAILURES else latch
    reading = next((r for r in readings if r.gpu_uuid == latch.uuid), None)
    if reading is None or reading.error in _AWAY_ERRORS or (reading.recovery_action or 0) > 0:
        return structs.replace(latch, away=True)
    if reading.error is not None or reading.hung or reading.suspended or reading.unread:
        return latch
    was_reset = False
    if reading.energy_mj is not None and latch.energy_mj is not None:
        was_reset = reading.energy_mj < latch.energy_mj
    if latch.away or was_reset:
        return None
    return (
        latch if reading.energy_mj is None else structs.replace(latch, energy_mj=reading.energy_mj)
    )


def _heat(reading: Reading, memory: HealthMemory, now: float) -> tuple[tuple[float, float], ...]:
    """The stretches of slowdown within the last ten minutes, oldest first."""
    spans = [
        (max(a, now - THERMAL_WINDOW_SECONDS), b) for a, b in memory.heat.get(reading.uuid, ())
    ]
    spans = [span for span in spans if span[1] > span[0]]
    if reading.heat and memory.checked_at is not None:
        since = max(memory.checked_at, now - _CHECK_REACH_SECONDS)
        if spans and spans[-1][1] >= since:
            since = spans.pop()[0]
        if since < now:
            spans.append((since, now))
    return tuple(spans)


def _sample(
    reading: Reading,
    latches: tuple[Latch, ...],
    heat: tuple[tuple[float, float], ...],
    table: XidTable,
) -> GpuSample:
    if why := why_unknown(reading):
        return GpuSample(
            uuid=reading.uuid,
            index=reading.index,
            name=reading.name,
            state="unknown",
            reasons=(why,),
        )
    found: list[tuple[GpuState, str]] = []
    if not reading.suspended:
        found += [(rule.state, rule.reason) for rule in RULES if rule.holds(reading)]
        if sum(until - since for since, until in heat) >= THERMAL_LIMIT_SECONDS:
            found.append((THERMAL.state, THERMAL.reason))
    for latch in latches:
        if latch.uuid == reading.gpu_uuid:
            found.append(
                (
                    "down" if effect_of(latch.xid, table) == "down" else "degraded",
                    f"xid:{latch.xid}",
                )
            )
    found.sort(
        key=lambda pair: pair[0] != "down"
    )  # stable: worst first, otherwise in the rules' order
    return GpuSample(
        uuid=reading.uuid,
        index=reading.index,
        name=reading.name,
        state=found[0][0] if found else "up",
        reasons=tuple(reason for _, reason in found),
    )
