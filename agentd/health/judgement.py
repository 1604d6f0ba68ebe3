"""Judges readings by the health rules, with what must be remembered between checks.

Pure. An XID holds until recovery, and thermal slowdown counts over ten minutes: a single reading
shows neither. Both are carried in `HealthMemory`, which the probe keeps across restarts of agentd
within one boot; a reboot resets GPUs.
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

_SAME_XID_SECONDS = 10.0  # the event set and the kernel log report one XID at almost the same time
# A slowdown seen now is taken to have lasted since the check before, but no longer than this.
_CHECK_REACH_SECONDS = 60.0
_AWAY_ERRORS = frozenset({9, 15, 16})  # driver not loaded, GPU lost, reset required
_RESETTING_FAILURES = frozenset({"driver-not-loaded"})
_LATCHING_EFFECTS = ("down", "degraded")

TimeSpan = tuple[float, float]  # two CLOCK_BOOTTIMEs in seconds


class Xid(Struct, frozen=True):
    """An XID at a CLOCK_BOOTTIME in seconds.

    `uuid` is the physical GPU; None where it cannot be named.
    """

    uuid: str | None
    number: int
    at: float


class Latch(Struct, frozen=True, kw_only=True):
    """An XID that holds until recovery.

    `away`: since then the GPU was seen lost, gone or in need of a reset. `energy_mj`: its energy
    counter when first read since then; a lower value later means that the GPU was reset.
    """

    uuid: str
    xid: int
    since: float
    away: bool = False
    energy_mj: int | None = None


class HealthMemory(Struct, frozen=True, kw_only=True):
    """What health must remember; it is valid in the boot `boot_id`.

    `kernel_log` is the last message of the log that was read. `addresses` has the GPU's UUID by PCI
    address, because the log names GPUs by address, and a GPU that fell off the bus no longer tells
    its own. `heat` has the times of thermal slowdown by GPU, oldest first.
    """

    boot_id: str = ""
    kernel_log: int | None = None
    addresses: dict[str, str] = {}
    latches: tuple[Latch, ...] = ()
    recent: tuple[Xid, ...] = ()
    heat: dict[str, tuple[TimeSpan, ...]] = {}
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
    """Judges one check at `now`. With a `failure` nothing was read, and no GPU counts as absent."""
    fresh, recent = _without_repeats(xids, memory.recent, now)
    latches = _latches_after_check(
        memory.latches,
        fresh,
        readings,
        table,
        failure,
    )
    heat = memory.heat
    if not failure:
        heat = {reading.uuid: _heat(reading, memory, now) for reading in readings}
    gpus = []
    for reading in readings:
        slowdowns = heat.get(reading.uuid, ())
        gpus.append(
            _sample(
                reading,
                latches,
                slowdowns,
                table,
            )
        )
    events = []
    for xid in fresh:
        if _is_incident(xid, table):
            events.append(
                GpuEvent(
                    at=xid.at,
                    uuid=xid.uuid,
                    reason=f"xid:{xid.number}",
                )
            )
    remembered = structs.replace(
        memory,
        latches=latches,
        recent=recent,
        heat=heat,
        checked_at=now,
    )
    return Judgement(tuple(gpus), tuple(events), remembered)


def cleared(memory: HealthMemory, uuid: str | None = None) -> HealthMemory:
    """The memory after the operator said that this GPU (None: every GPU) has recovered."""
    kept: tuple[Latch, ...] = ()
    if uuid is not None:
        kept = tuple(latch for latch in memory.latches if latch.uuid != uuid)
    return structs.replace(memory, latches=kept)


def _without_repeats(
    xids: Sequence[Xid],
    recent: tuple[Xid, ...],
    now: float,
) -> tuple[list[Xid], tuple[Xid, ...]]:
    """Returns the XIDs not reported before, and the recent ones to compare the next with."""
    known: dict[tuple[str | None, int], Xid] = {}
    for xid in recent:
        if now - xid.at < _SAME_XID_SECONDS:
            known[xid.uuid, xid.number] = xid
    fresh = []
    for xid in sorted(xids, key=lambda xid: xid.at):
        before = known.get((xid.uuid, xid.number))
        if before is None or xid.at - before.at >= _SAME_XID_SECONDS:
            fresh.append(xid)
            known[xid.uuid, xid.number] = xid
    return fresh, tuple(known.values())


def _is_incident(xid: Xid, table: XidTable) -> bool:
    """Whether the XID is only recorded.

    That is so, too, for one that should count against an unknown GPU.
    """
    effect = effect_of(xid.number, table)
    if xid.uuid is None:
        return effect != "none"
    return effect == "incident"


# ---- latches -------------------------------------------------------------------------------------


def _latches_after_check(
    latches: tuple[Latch, ...],
    fresh: list[Xid],
    readings: Sequence[Reading],
    table: XidTable,
    failure: str | None,
) -> tuple[Latch, ...]:
    kept = []
    for latch in _with_fresh(latches, fresh, table):
        after: Latch | None
        if failure:
            after = _after_failure(latch, failure)
        else:
            after = _after_reading(latch, _reading_of(latch.uuid, readings))
        if after is not None:
            kept.append(after)
    return tuple(kept)


def _with_fresh(
    latches: tuple[Latch, ...],
    fresh: list[Xid],
    table: XidTable,
) -> list[Latch]:
    """A repeated XID replaces its latch: signs of a recovery belonged to the earlier one."""
    held: dict[tuple[str, int], Latch] = {}
    for latch in latches:
        if effect_of(latch.xid, table) in _LATCHING_EFFECTS:
            held[latch.uuid, latch.xid] = latch
    for xid in fresh:
        if xid.uuid is not None and effect_of(xid.number, table) in _LATCHING_EFFECTS:
            latch = Latch(
                uuid=xid.uuid,
                xid=xid.number,
                since=xid.at,
            )
            held[xid.uuid, xid.number] = latch
    return list(held.values())


def _reading_of(uuid: str, readings: Sequence[Reading]) -> Reading | None:
    for reading in readings:
        if reading.gpu_uuid == uuid:
            return reading
    return None


def _after_failure(latch: Latch, failure: str) -> Latch:
    if failure in _RESETTING_FAILURES:
        return structs.replace(latch, away=True)
    return latch


def _after_reading(latch: Latch, reading: Reading | None) -> Latch | None:
    """Returns None once the GPU was seen away, or asking for recovery, and is well again."""
    if reading is None or _is_away(reading):
        return structs.replace(latch, away=True)
    if reading.error is not None or reading.hung or reading.suspended or reading.unread:
        return latch
    if latch.away:
        return None
    if reading.energy_mj is None:
        return latch
    was_reset = latch.energy_mj is not None and reading.energy_mj < latch.energy_mj
    if was_reset:
        return None
    return structs.replace(latch, energy_mj=reading.energy_mj)


def _is_away(reading: Reading) -> bool:
    """Whether the GPU is lost, or needs or asks for a recovery action."""
    if reading.error in _AWAY_ERRORS:
        return True
    return reading.recovery_action is not None and reading.recovery_action > 0


# ---- thermal slowdown ----------------------------------------------------------------------------


def _heat(
    reading: Reading,
    memory: HealthMemory,
    now: float,
) -> tuple[TimeSpan, ...]:
    """The times of slowdown within the last ten minutes, oldest first."""
    spans: list[TimeSpan] = []
    for since, until in memory.heat.get(reading.uuid, ()):
        since_in_window = max(since, now - THERMAL_WINDOW_SECONDS)
        if since_in_window < until:
            spans.append((since_in_window, until))
    if reading.is_thermally_slowed and memory.checked_at is not None:
        since = max(memory.checked_at, now - _CHECK_REACH_SECONDS)
        if spans and spans[-1][1] >= since:
            since = spans.pop()[0]
        if since < now:
            spans.append((since, now))
    return tuple(spans)


def _is_too_hot(slowdowns: tuple[TimeSpan, ...]) -> bool:
    total = sum(until - since for since, until in slowdowns)
    return total >= THERMAL_LIMIT_SECONDS


# ---- the verdict ---------------------------------------------------------------------------------


def _sample(
    reading: Reading,
    latches: tuple[Latch, ...],
    slowdowns: tuple[TimeSpan, ...],
    table: XidTable,
) -> GpuSample:
    """The worst state that any rule or latch finds, with the reasons of all, worst first."""
    state: GpuState = "up"
    reasons: list[str] = []
    unknown_reason = why_unknown(reading)
    if unknown_reason:
        state = "unknown"
        reasons = [unknown_reason]
    else:
        by_state = _reasons_by_state(
            reading,
            latches,
            slowdowns,
            table,
        )
        reasons = by_state["down"] + by_state["degraded"]
        if by_state["down"]:
            state = "down"
        elif by_state["degraded"]:
            state = "degraded"
    return GpuSample(
        uuid=reading.uuid,
        index=reading.index,
        name=reading.name,
        state=state,
        reasons=tuple(reasons),
    )


def _reasons_by_state(
    reading: Reading,
    latches: tuple[Latch, ...],
    slowdowns: tuple[TimeSpan, ...],
    table: XidTable,
) -> dict[GpuState, list[str]]:
    """The reasons for `down` and for `degraded`: those of the rules, then those of the latches."""
    reasons: dict[GpuState, list[str]] = {"down": [], "degraded": []}
    if not reading.suspended:
        for rule in RULES:
            if rule.holds(reading):
                reasons[rule.state].append(rule.reason)
        if _is_too_hot(slowdowns):
            reasons[THERMAL.state].append(THERMAL.reason)
    for latch in latches:
        if latch.uuid != reading.gpu_uuid:
            continue
        if effect_of(latch.xid, table) == "down":
            reasons["down"].append(f"xid:{latch.xid}")
        else:
            reasons["degraded"].append(f"xid:{latch.xid}")
    return reasons
