"""Detects two hosts that use one agent id, by the boot_ids in their reports. Pure.

The boot_id of one host changes at a reboot and the old one never comes back. A boot_id that comes
back after another one was seen belongs to a second host with the same id and credentials. Both are
then shown as in conflict until an operator has put it right.
"""

from bus.contract.messages import AgentState, UptimeReport

REMEMBERED_BOOTS = 4


def boots(before: AgentState | None, report: UptimeReport | None) -> tuple[str, ...]:
    """Returns the boot_ids seen last, newest first, REMEMBERED_BOOTS at most."""
    known: tuple[str, ...] = ()
    if before is not None:
        known = before.boot_ids
    if report is None or not report.boot_id:
        return known
    if known and known[0] == report.boot_id:
        return known
    newest_first = [report.boot_id]
    for boot_id in known:
        if boot_id != report.boot_id:
            newest_first.append(boot_id)
    return tuple(newest_first[:REMEMBERED_BOOTS])


def conflict(before: AgentState | None, report: UptimeReport | None) -> tuple[str, ...]:
    """Returns the boot_ids of the hosts that answer under the same id; empty without a conflict.

    A conflict ends with the first boot_id that was not seen before.
    """
    if before is None:
        return ()
    if report is None or not report.boot_id:
        return before.conflicting_boot_ids
    if report.boot_id in before.boot_ids[1:]:
        return (report.boot_id, before.boot_ids[0])
    if report.boot_id in before.boot_ids:
        return before.conflicting_boot_ids
    return ()
