"""What the answers of schedulers, storage and registry say about the fleet. No I/O.

The checks of `bus_checks` ask; these judge.
"""

from collections.abc import Sequence

from bus.contract.questions import Agent, AgentPage, SchedulerStats, StorageStats
from gpuping.output.findings import Finding, note, ok, warning

NAMED_AGENTS = 5
MOST_USED_SHARE = 0.8  # of what a nats-server may hold
LEAST_DISK_BYTES = 2 * 2**30
SHORT_EDGE_DAYS = 7.0


def policies(schedulers: list[SchedulerStats]) -> Finding:
    """Whether all schedulers judge by the same rules."""
    differing = [stats.instance for stats in schedulers if stats.differing_policies]
    if differing:
        detail = f"schedulers judge by different rules: {', '.join(differing)}"
        return warning("policies", detail, "give all schedulers the same PING_ settings")
    return ok("policies", f"{len(schedulers)} schedulers judge by the same rules")


def bus_disks(schedulers: list[SchedulerStats]) -> Finding:
    """Whether each nats-server has room, and syncs what it acknowledges."""
    servers = {server.name: server for stats in schedulers for server in stats.bus_servers}
    if not servers:
        advice = "give a scheduler NATS_SYSTEM_CREDS (identity/system.creds)"
        return note("bus disks", "no scheduler sees the disks of the nats-servers", advice)
    unsynced = [server.name for server in servers.values() if not server.syncs_always]
    if unsynced:
        detail = f"{', '.join(unsynced)}: a power cut loses outcomes that were acknowledged"
        advice = "set `sync_interval: always` in jetstream {} of nats-server (deploy/nats.conf)"
        return warning("bus disks", detail, advice)
    parts = []
    is_full = False
    for server in servers.values():
        used = server.stored_bytes / server.limit_bytes
        is_full = is_full or used > MOST_USED_SHARE
        parts.append(f"{server.name} {used:.0%} of {server.limit_bytes / 2**30:.1f} GiB")
    detail = f"used: {', '.join(parts)}"
    if is_full:
        advice = "make room, or raise max_file_store: a full bus takes no outcomes"
        return warning("bus disks", detail, advice)
    return ok("bus disks", detail)


def gateways(schedulers: list[SchedulerStats]) -> Finding:
    """Whether somebody shows the fleet over HTTP, and which gateways froze or were cut off."""
    counts = [stats.gateways for stats in schedulers if stats.gateways is not None]
    if not counts:
        return note("gateways", "no scheduler sees who is connected (NATS_SYSTEM_CREDS)")
    connected = f"{max(counts)} connected"
    advice = "start it again, or see its log"
    if max(counts) == 0:
        connected = "no gateway is connected to the bus"
        advice = "start `gpuping gateway`, or see its log"
    lost = _lost_gateways(schedulers)
    if lost:
        return warning("gateways", f"{connected}; frozen or cut off: {', '.join(lost)}", advice)
    if max(counts) == 0:
        return warning("gateways", connected, advice)
    return ok("gateways", connected)


def _lost_gateways(schedulers: list[SchedulerStats]) -> list[str]:
    """The gateways that are lost by the word of the scheduler that knows of most of them.

    Each scheduler hears of all of them, but for what happened before it was started.
    """
    most = max(schedulers, key=lambda stats: len(stats.lost_gateways))
    return [f"{one.host} since {one.since:%H:%M:%S} UTC" for one in most.lost_gateways]


def storage_disk(stats: StorageStats) -> Finding:
    """Whether storage has room for its file."""
    if stats.disk_free_bytes is None:
        return note("storage disk", "storage does not say how much room it has")
    detail = f"{stats.disk_free_bytes / 2**30:.1f} GiB free where storage keeps its file"
    if stats.disk_free_bytes < LEAST_DISK_BYTES:
        return warning("storage disk", detail, "make room: ingest waits when the disk is full")
    return ok("storage disk", detail)


def edge(stats: StorageStats) -> Finding:
    """How far back the bus holds outcomes, and whether days exist in one file only."""
    if stats.stream_begins is None:
        return note("history", "the bus holds no outcomes yet")
    detail = f"the bus holds outcomes since {stats.stream_begins:%Y-%m-%d}"
    if stats.stream_days_left is not None:
        detail += f" and drops the oldest in about {stats.stream_days_left:.0f} days"
    if stats.days_in_file_only:
        detail += f"; {stats.days_in_file_only} days are in storage's file only"
        advice = "see storage's log: they should have been archived; back its data dir up"
        return warning("history", detail, advice)
    if stats.stream_days_left is not None and stats.stream_days_left < SHORT_EDGE_DAYS:
        advice = "storage archives what is dropped; GPUPING_HISTORY_STREAM_GB keeps more on the bus"
        return note("history", detail, advice)
    return ok("history", detail)


def agents(silent: AgentPage, pending: AgentPage) -> Finding:
    """Whether hosts are silent.

    `silent` lists those whose last pings were missed, `pending` those that have never answered; the
    latter may not have been pinged yet.
    """
    never_answered = [agent for agent in pending.agents if agent.missed_pings]
    found = []
    if silent.total:
        found.append(f"{silent.total} do not answer: {_named(silent.agents, silent.total)}")
    if never_answered:
        named = _named(never_answered, len(never_answered))
        found.append(f"{len(never_answered)} have never answered: {named}")
    if not found:
        return ok("hosts", "every host that is registered answers, or was not pinged yet")
    advice = "see whether the host runs, and `journalctl -u gpuping-agentd` on it"
    return warning("hosts", "; ".join(found), advice)


def _named(agents: Sequence[Agent], total: int) -> str:
    named = []
    for agent in agents[:NAMED_AGENTS]:
        reason = f" ({agent.last_reason})" if agent.last_reason else ""
        named.append(f"{agent.agent_id}{reason}")
    if total > NAMED_AGENTS:
        named.append("...")
    return ", ".join(named)
