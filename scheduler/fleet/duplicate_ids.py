"""Two hosts under one id: found by the boots that their reports name. Pure.

One host's boot_id changes at a reboot and never comes back. One that comes back after another has been seen
belongs to a second host with the same id and credentials: both are flagged, and an operator has to look.
"""

from bus.contract.messages import AgentState, UptimeReport

REMEMBERED_BOOTS = 4


def boots(before: AgentState | None, report: UptimeReport | None) -> tuple[str, ...]:
    """The boot_ids seen lately, newest first."""
    known = before.boot_ids if before else ()
    if report is None or not report.boot_id or known[:1] == (report.boot_id,):
        return known
    return (report.boot_id, *(boot for boot in known if boot != report.boot_id))[:REMEMBERED_BOOTS]


def conflict(before: AgentState | None, report: UptimeReport | None) -> tuple[str, ...]:
    """The boot_ids of hosts that answer under the same id. Stays until a boot that is new ends it."""
    if before is None or report is None or not report.boot_id:
        return before.conflicting_boot_ids if before else ()
    returned = report.boot_id in before.boot_ids[1:]
    if returned:
        return (report.boot_id, before.boot_ids[0])
    return before.conflicting_boot_ids if report.boot_id in before.boot_ids else ()
