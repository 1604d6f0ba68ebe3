"""What the answers of schedulers, storage and registry say about the fleet. No I/O.

The checks of `bus_checks` ask; these judge.
"""

from collections.abc import Sequence

from bus.contract.questions import (
    Agent,
    AgentPage,
    BusServer,
    LostGateway,
    LostScheduler,
    SchedulerStats,
    StorageStats,
)
from gpuping.output.findings import Finding, note, ok, warning
from gpuping.output.formats import counted

NAMED_AGENTS = 5
MOST_USED_SHARE = 0.8  # of what a nats-server may hold
LEAST_DISK_BYTES = 2 * 2**30
SHORT_EDGE_DAYS = 7.0


def policies(schedulers: list[SchedulerStats]) -> Finding:
    """Whether all schedulers judge by the same rules."""
    differing = []
    for stats in schedulers:
        if stats.differing_policies:
            differing.append(stats.instance)
    if differing:
        detail = f"schedulers judge by different rules: {', '.join(differing)}"
        return warning("policies", detail, "give all schedulers the same PING_ settings")
    return ok("policies", f"one set of rules, of {counted(len(schedulers), 'scheduler')}")


def lost_schedulers(schedulers: list[SchedulerStats]) -> Finding:
    """Whether each scheduler that worked lately still does."""
    lost: dict[str, LostScheduler] = {}
    for stats in schedulers:
        for one in stats.lost_schedulers:
            lost[one.instance] = one
    for stats in schedulers:
        lost.pop(stats.instance, None)
    if not lost:
        return ok(
            "schedulers", f"{counted(len(schedulers), 'scheduler')} at work, and none is lost"
        )
    named = [f"{one.instance} since {one.since:%H:%M:%S} UTC" for one in lost.values()]
    return warning(
        "schedulers",
        f"frozen, ended by force or cut off: {', '.join(named)}; the others ping its hosts",
        "end it if it hangs, and it is started again; its log has that id (scheduler_announced)",
    )


def bus_disks(schedulers: list[SchedulerStats]) -> Finding:
    """Whether each nats-server has room, and syncs what it acknowledges."""
    servers = _bus_servers(schedulers)
    if not servers:
        advice = "give a scheduler NATS_SYSTEM_CREDS (identity/system-scheduler.creds)"
        return note("bus disks", "no scheduler sees the disks of the nats-servers", advice)
    unsynced = []
    used = []
    is_full = False
    for server in servers:
        if not server.syncs_always:
            unsynced.append(server.name)
        share = server.stored_bytes / server.limit_bytes
        limit_gib = server.limit_bytes / 2**30
        used.append(f"{server.name} {share:.0%} of {limit_gib:.1f} GiB")
        if share > MOST_USED_SHARE:
            is_full = True
    if unsynced:
        detail = f"{', '.join(unsynced)}: a power cut loses outcomes that were acknowledged"
        advice = "set `sync_interval: always` in jetstream {} of nats-server (deploy/nats.conf)"
        return warning("bus disks", detail, advice)
    detail = f"used: {', '.join(used)}"
    if is_full:
        advice = "make room, or raise max_file_store: a full bus takes no outcomes"
        return warning("bus disks", detail, advice)
    return ok("bus disks", detail)


def _bus_servers(schedulers: list[SchedulerStats]) -> list[BusServer]:
    """The nats-servers that any scheduler sees, each of them once."""
    by_name: dict[str, BusServer] = {}
    for stats in schedulers:
        for server in stats.bus_servers:
            by_name[server.name] = server
    return list(by_name.values())


def gateways(schedulers: list[SchedulerStats]) -> Finding:
    """Whether somebody shows the fleet over HTTP, and which gateways froze or were cut off."""
    counts = []
    for stats in schedulers:
        if stats.gateways is not None:
            counts.append(stats.gateways)
    if not counts:
        return note("gateways", "no scheduler sees who is connected (NATS_SYSTEM_CREDS)")
    connected = max(counts)
    if connected:
        detail = f"{connected} connected"
        advice = "start it again, or see its log"
    else:
        detail = "no gateway is connected to the bus"
        advice = "start `gpuping gateway`, or see its log"
    lost = _lost_gateways(schedulers)
    if lost:
        detail += f"; frozen or cut off: {', '.join(lost)}"
    if lost or not connected:
        return warning("gateways", detail, advice)
    return ok("gateways", detail)


def _lost_gateways(schedulers: list[SchedulerStats]) -> list[str]:
    """The lost gateways, as the scheduler lists them that knows of the most.

    Each scheduler is told of all of them, except of what happened before it was started.
    """
    longest: tuple[LostGateway, ...] = ()
    for stats in schedulers:
        if len(stats.lost_gateways) > len(longest):
            longest = stats.lost_gateways
    return [f"{one.host} since {one.since:%H:%M:%S} UTC" for one in longest]


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
    if stats.stream_begins is None and not stats.days_in_file_only:
        return note("history", "the bus holds no outcomes yet")
    if stats.stream_begins is None:
        detail = "the bus holds no outcomes"
    else:
        detail = f"the bus holds outcomes since {stats.stream_begins:%Y-%m-%d %H:%M} UTC"
    if stats.stream_days_left is not None:
        detail += f" and drops the oldest in about {stats.stream_days_left:.0f} days"
    if stats.days_in_file_only:
        days = counted(stats.days_in_file_only, "day")
        detail += f"; of {days} outcomes are in storage's file only"
        advice = (
            "keep that file, and a copy of storage's data dir: they cannot be had from elsewhere. "
            "They were archived in time unless the history stream lost messages, or holds less "
            "than two days (GPUPING_HISTORY_STREAM_GB)"
        )
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
    never_answered = []
    for agent in pending.agents:
        if agent.missed_pings:
            never_answered.append(agent)
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
        if agent.last_reason:
            named.append(f"{agent.agent_id} ({agent.last_reason})")
        else:
            named.append(agent.agent_id)
    if total > NAMED_AGENTS:
        named.append("...")
    return ", ".join(named)
