"""Detects two hosts, or two agents on one host, that answer under one agent id. Pure.

A reboot changes the boot_id, a restart of agentd changes the session_id, and the old ones never
come back. One that comes back after another was seen belongs to a second agent with the same id and
credentials. The same holds for sets of GPUs that have no GPU in common, where another session
reports them. A host whose GPU was lost for a while still has the others, one agentd sees MIG
devices come and go, and a GPU that the operator replaced begins a new memory of sets.

Both agents are then shown as in conflict until an operator has put it right. Each answer that comes
meanwhile is recorded with the remark TWO_UNDER_ONE_ID, so that statements can say when it was.
"""

import zlib
from typing import NamedTuple

from bus.contract.messages import AgentEntry, AgentState, UptimeReport, report_of

REMEMBERED = 4  # boots, sessions and sets of GPUs, the newest first


class Identities(NamedTuple):
    """What the reports of an agent were seen with, and what of that is in conflict.

    `gpu_sets` are the GPUs that were present, each as eight hex digits, joined by dots.
    `conflicting_gpus` has a GPU of either set.
    """

    boot_ids: tuple[str, ...] = ()
    conflicting_boot_ids: tuple[str, ...] = ()
    session_ids: tuple[str, ...] = ()
    conflicting_sessions: tuple[str, ...] = ()
    gpu_sets: tuple[str, ...] = ()
    conflicting_gpus: tuple[str, ...] = ()

    @property
    def are_conflicting(self) -> bool:
        """Whether two agents answer under this id."""
        return bool(self.conflicting_boot_ids or self.conflicting_sessions or self.conflicting_gpus)


def identities(
    before: AgentState | None,
    entry: AgentEntry | None,
    report: UptimeReport | None,
) -> Identities:
    """Returns what is known after this report; None stands for a ping without one."""
    known = _known(before)
    if report is None:
        return known
    gpu_set = present_gpus(report)
    were_changed = _gpus_were_changed(before, entry)
    gpu_sets = known.gpu_sets
    if were_changed:
        gpu_sets = ()
    conflicting_gpus = known.conflicting_gpus
    if gpu_set and gpu_set not in gpu_sets:
        conflicting_gpus = ()
    is_other_session = not report.session_id or report.session_id not in known.session_ids[:1]
    if is_other_session and _alternates(gpu_sets, gpu_set) and before is not None:
        conflicting_gpus = _examples(report, before)
    return Identities(
        boot_ids=_newest_first(known.boot_ids, report.boot_id),
        conflicting_boot_ids=_conflict(known.boot_ids, report.boot_id, known.conflicting_boot_ids),
        session_ids=_newest_first(known.session_ids, report.session_id),
        conflicting_sessions=_conflict(
            known.session_ids, report.session_id, known.conflicting_sessions
        ),
        gpu_sets=_newest_first(gpu_sets, gpu_set),
        conflicting_gpus=conflicting_gpus,
    )


def is_as_before(
    before: AgentState | None,
    entry: AgentEntry | None,
    report: UptimeReport,
) -> bool:
    """Returns whether this report shows the newest of everything that is known already.

    That is the common case, in which `identities` changes nothing.
    """
    if before is None or not (before.boot_ids and before.session_ids and before.gpu_sets):
        return False
    if before.boot_ids[0] != report.boot_id or before.session_ids[0] != report.session_id:
        return False
    if before.gpu_sets[0] != present_gpus(report):
        return False
    return not _gpus_were_changed(before, entry)


def is_conflicting(state: AgentState | None) -> bool:
    """Returns whether two agents answer under this id, or were connected at the last outcome."""
    if state is None:
        return False
    return bool(
        state.conflicting_connections
        or state.conflicting_boot_ids
        or state.conflicting_sessions
        or state.conflicting_gpus
    )


def present_gpus(report: UptimeReport) -> str:
    """Returns the GPUs that the host has, in short; those that it lacks have no index."""
    present = []
    for gpu in report.gpus:
        if gpu.index is not None:
            present.append(f"{zlib.crc32(gpu.uuid.encode()):08x}")
    if len(present) == 1:
        return present[0]
    present.sort()
    return ".".join(present)


def _known(before: AgentState | None) -> Identities:
    if before is None:
        return Identities()
    return Identities(
        before.boot_ids,
        before.conflicting_boot_ids,
        before.session_ids,
        before.conflicting_sessions,
        before.gpu_sets,
        before.conflicting_gpus,
    )


def _gpus_were_changed(before: AgentState | None, entry: AgentEntry | None) -> bool:
    """Returns whether the operator changed the GPUs since the last answered ping."""
    if entry is None or not entry.gpu_changes:
        return False
    if before is None or before.last_answered_at is None:
        return False
    return entry.gpu_changes[-1].at >= before.last_answered_at


def _newest_first(known: tuple[str, ...], seen: str) -> tuple[str, ...]:
    """Returns the values seen last, REMEMBERED at most; an empty value is not remembered."""
    if not seen or (known and known[0] == seen):
        return known
    others = [value for value in known if value != seen]
    return (seen, *others[: REMEMBERED - 1])


def _conflict(
    known: tuple[str, ...],
    seen: str,
    before: tuple[str, ...],
) -> tuple[str, ...]:
    """Returns both values where one comes back; a conflict ends with a value not seen before."""
    if not seen:
        return before
    if seen in known[1:]:
        return (seen, known[0])
    if seen in known:
        return before
    return ()


def _alternates(known: tuple[str, ...], seen: str) -> bool:
    """Returns whether a set of GPUs comes back after one that has none of its GPUs."""
    if not seen or seen not in known[1:]:
        return False
    own = set(seen.split("."))
    later = known[: known.index(seen)]
    return any(own.isdisjoint(other.split(".")) for other in later)


def _examples(report: UptimeReport, before: AgentState) -> tuple[str, ...]:
    """Returns one GPU of this report, and one of the report before where that is known."""
    examples = []
    for shown in (report, report_of(before.last)):
        if shown is None:
            continue
        for gpu in shown.gpus:
            if gpu.index is not None and gpu.uuid not in examples:
                examples.append(gpu.uuid)
                break
    return tuple(examples)
