"""Answers of the scheduler and storage as Prometheus metrics. No I/O: answers in, families out.

Only the families of `agent_families` have a label for each agent. They are served on request only,
because their number of series grows with the fleet.
"""

from collections.abc import Iterable
from typing import get_args

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from bus.contract.messages import GpuState, Status
from bus.contract.questions import Agent, Fleet, OverviewReply, SchedulerStats, StorageStats


def gauge(
    name: str,
    text: str,
    value: float,
) -> Metric:
    """A gauge without labels, named `gpuping_<name>`."""
    return GaugeMetricFamily(f"gpuping_{name}", text, value=value)


def fleet_families(fleet: Fleet | None) -> list[Metric]:
    """Counts of the registered agents. None gives no families: absent, and not 0."""
    if fleet is None:
        return []
    agents = GaugeMetricFamily("gpuping_agents", "Registered agents", labels=["status"])
    for status in get_args(Status):
        agents.add_metric([status], fleet.by_status.get(status, 0))
    return [
        agents,
        gauge(
            "duplicate_agent_ids",
            "Agents under whose id two hosts or two agents answer",
            fleet.duplicate_ids,
        ),
        gauge("due_agents", "Agents whose next ping has come", fleet.due),
        gauge("pings_in_flight", "Pings waiting for their answer", fleet.in_flight),
    ]


def scheduler_families(stats: SchedulerStats | None) -> list[Metric]:
    """What one scheduler has counted since its start. None gives no families."""
    if stats is None:
        return []
    instance = stats.instance
    pings = CounterMetricFamily(
        "gpuping_pings",
        "Ping outcomes recorded",
        labels=["verdict", "instance"],
    )
    for verdict, count in sorted(stats.verdicts.items()):
        pings.add_metric([verdict, instance], count)
    return [
        pings,
        _histogram(
            "ping_seconds",
            "Time until an agent answered",
            instance,
            stats.ping_seconds,
            stats.ping_seconds_sum,
        ),
        _histogram(
            "ping_late_seconds",
            "Time from due to pinged",
            instance,
            stats.late_seconds,
            stats.late_seconds_sum,
        ),
        _counter("commits", "Atomic batches of outcomes", instance, stats.commits),
        _counter(
            "lost_races",
            "Outcomes that another scheduler had recorded already",
            instance,
            stats.lost_races,
        ),
        _counter(
            "bad_messages",
            "Messages that could not be read",
            instance,
            stats.bad_messages,
        ),
        _gauge(
            "held_pings",
            "Pings held until the history stream has their agent's last state",
            instance,
            stats.held,
        ),
        _gauge(
            "holding_seconds",
            "For how long pings have been held without a break",
            instance,
            stats.holding_seconds,
        ),
        _counter(
            "held_seconds",
            "Time in which a ping was held for the history stream",
            instance,
            stats.held_seconds,
        ),
        _gauge(
            "differing_policies",
            "Schedulers that judge by other rules",
            instance,
            len(stats.differing_policies),
        ),
        _gauge(
            "layout_problems",
            "Streams that are not as the settings want them",
            instance,
            len(stats.layout_problems),
        ),
        _counter(
            "lost_enrolments",
            "Agents that were registered and are gone from the bucket",
            instance,
            stats.lost_enrolments,
        ),
        _counter(
            "held_back_seconds",
            "Time in which PING_MAX_CONCURRENT_AGENTS held pings back",
            instance,
            stats.held_back_seconds,
        ),
        *_clock_families(stats),
    ]


def _clock_families(stats: SchedulerStats) -> list[Metric]:
    """How far the server's clock is from the scheduler's; nothing before it was measured."""
    if stats.bus_clock_offset_seconds is None:
        return []
    family = GaugeMetricFamily(
        "gpuping_scheduler_clock_offset_seconds",
        "The bus server's clock less the scheduler's",
        labels=["instance"],
    )
    family.add_metric([stats.instance], stats.bus_clock_offset_seconds)
    return [family]


def _gauge(
    name: str,
    text: str,
    instance: str,
    value: float,
) -> Metric:
    family = GaugeMetricFamily(f"gpuping_scheduler_{name}", text, labels=["instance"])
    family.add_metric([instance], value)
    return family


def _counter(
    name: str,
    text: str,
    instance: str,
    value: float,
) -> Metric:
    family = CounterMetricFamily(f"gpuping_scheduler_{name}", text, labels=["instance"])
    family.add_metric([instance], value)
    return family


def _histogram(
    name: str,
    text: str,
    instance: str,
    counts: dict[str, int],
    total_seconds: float,
) -> Metric:
    """A histogram; `counts` holds the number of values up to each bound."""
    family = HistogramMetricFamily(f"gpuping_{name}", text, labels=["instance"])
    family.add_metric([instance], list(counts.items()), total_seconds)
    return family


def storage_families(overview: OverviewReply | None, stats: StorageStats | None) -> list[Metric]:
    """The fleet's uptime, and how far history is behind the bus. What is None is left out."""
    families: list[Metric] = []
    if overview and overview.uptime_percent is not None:
        text = "Fleet uptime of the last 24 hours, by summed seconds"
        families.append(gauge("fleet_uptime_ratio", text, overview.uptime_percent / 100))
    if stats:
        text = "Outcomes on the bus that are not yet history"
        families.append(gauge("ingest_lag_outcomes", text, stats.lag))
        families.append(gauge("history_rows", "Outcomes in history", stats.rows))
        text = "Days of history that neither the bus nor the archive holds"
        families.append(gauge("history_days_in_file_only", text, stats.days_in_file_only))
        if stats.stream_begins is not None:
            text = "When the oldest outcome on the bus was recorded"
            begins = stats.stream_begins.timestamp()
            families.append(gauge("stream_begin_timestamp_seconds", text, begins))
        if stats.stream_days_left is not None:
            text = "Days until the bus drops its oldest outcomes, at the rate so far"
            families.append(gauge("stream_days_left", text, stats.stream_days_left))
        text = "Outcomes that never reached history"
        families.append(gauge("history_missing_outcomes", text, stats.missing_seqs))
    return families


def agent_families(agents: Iterable[Agent]) -> list[Metric]:
    """A set of series for each agent. A value that was never observed has no sample."""
    status = _agent_gauge("status", "1 for the status that the agent has", "status")
    uptime = _agent_gauge("uptime_ratio", "Uptime of the last judged ping")
    poor = _agent_gauge("consecutive_poor", "Steps of escalation")
    interval = _agent_gauge("interval_seconds", "Present ping interval")
    next_ping = _agent_gauge("next_ping_timestamp_seconds", "When the next ping is due")
    last_ping = _agent_gauge("last_ping_timestamp_seconds", "When the last ping was")
    gpus = _agent_gauge("gpus", "GPUs of the last answer", "state")
    for agent in agents:
        label = agent.agent_id
        status.add_metric([label, agent.status], 1)
        poor.add_metric([label], agent.consecutive_poor_uptime)
        interval.add_metric([label], agent.current_interval_minutes * 60)
        if agent.uptime_percent is not None:
            uptime.add_metric([label], agent.uptime_percent / 100)
        if agent.next_ping_at:
            next_ping.add_metric([label], agent.next_ping_at.timestamp())
        if agent.last_ping_at:
            last_ping.add_metric([label], agent.last_ping_at.timestamp())
        counts = dict.fromkeys(get_args(GpuState), 0)
        for gpu in agent.gpus:
            counts[gpu.state] += 1
        for state, count in counts.items():
            gpus.add_metric([label, state], count)
    return [status, uptime, poor, interval, next_ping, last_ping, gpus]


def _agent_gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"gpuping_agent_{name}", text, labels=["agent_id", *labels])
