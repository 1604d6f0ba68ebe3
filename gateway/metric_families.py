"""What the services behind the gateway answer, as Prometheus metrics. Pure: answers in, metric families out.

No label of the always-present series grows with the fleet; `of_agents` is the one that does, and is asked for.
"""

from typing import get_args

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from bus.contract.messages import Status
from bus.contract.questions import Agent, Fleet, OverviewReply, SchedulerStats, StorageStats


def gauge(name: str, text: str, value: float | None) -> list[Metric]:
    """One value without labels; nothing where it is not known."""
    return [] if value is None else [GaugeMetricFamily(f"gpuping_{name}", text, value=value)]


def of_fleet(fleet: Fleet | None) -> list[Metric]:
    """The registered agents."""
    if fleet is None:
        return []
    by_status = GaugeMetricFamily("gpuping_agents", "Registered agents", labels=["status"])
    for status in get_args(Status):
        by_status.add_metric([status], fleet.by_status.get(status, 0))
    due = gauge("due_agents", "Agents whose next ping has come", fleet.due)
    return [
        by_status,
        *due,
        *gauge("pings_in_flight", "Pings waiting for their answer", fleet.in_flight),
    ]


def of_scheduler(stats: SchedulerStats | None) -> list[Metric]:
    """What one scheduler has counted since its start."""
    if stats is None:
        return []
    pings = CounterMetricFamily(
        "gpuping_pings", "Ping outcomes recorded", labels=["verdict", "instance"]
    )
    for verdict, count in sorted(stats.verdicts.items()):
        pings.add_metric([verdict, stats.instance], count)
    counters = {
        "commits": ("Atomic batches of outcomes", stats.commits),
        "lost_races": ("Outcomes that another scheduler had recorded already", stats.lost_races),
        "bad_messages": ("Messages that could not be read", stats.bad_messages),
        "held_back_seconds": (
            "Time in which PING_MAX_CONCURRENT_AGENTS held pings back",
            stats.held_back_seconds,
        ),
    }
    answered = HistogramMetricFamily(
        "gpuping_ping_seconds", "Time until an agent answered", labels=["instance"]
    )
    answered.add_metric([stats.instance], list(stats.ping_seconds.items()), stats.ping_seconds_sum)
    late = HistogramMetricFamily(
        "gpuping_ping_late_seconds", "Time from due to pinged", labels=["instance"]
    )
    late.add_metric([stats.instance], list(stats.late_seconds.items()), stats.late_seconds_sum)
    return [
        pings,
        answered,
        late,
        *(
            _counter(f"scheduler_{name}", text, stats.instance, value)
            for name, (text, value) in counters.items()
        ),
    ]


def _counter(name: str, text: str, instance: str, value: float) -> Metric:
    family = CounterMetricFamily(f"gpuping_{name}", text, labels=["instance"])
    family.add_metric([instance], value)
    return family


def of_storage(overview: OverviewReply | None, storage: StorageStats | None) -> list[Metric]:
    """The fleet's uptime, and how far history has followed."""
    families: list[Metric] = []
    if overview and overview.uptime_percent is not None:
        text = "Fleet uptime of the last 24 hours, by summed seconds"
        families += gauge("fleet_uptime_ratio", text, overview.uptime_percent / 100)
    if storage:
        families += gauge(
            "ingest_lag_outcomes", "Outcomes on the bus that are not yet history", storage.lag
        )
        families += gauge("history_rows", "Outcomes in history", storage.rows)
        families += gauge(
            "history_missing_outcomes", "Outcomes that never reached history", storage.missing_seqs
        )
    return families


def of_agents(agents: list[Agent]) -> list[Metric]:
    """One series set an agent. What was not observed has no sample: 0 would be a claim."""

    def family(name: str, text: str, *labels: str) -> GaugeMetricFamily:
        return GaugeMetricFamily(f"gpuping_agent_{name}", text, labels=["agent_id", *labels])

    status = family("status", "1 for the status that the agent has", "status")
    uptime = family("uptime_ratio", "Uptime of the last judged ping")
    poor = family("consecutive_poor", "Steps of escalation")
    interval = family("interval_seconds", "Present ping interval")
    next_ping = family("next_ping_timestamp_seconds", "When the next ping is due")
    last_ping = family("last_ping_timestamp_seconds", "When the last ping was")
    gpus = family("gpus", "GPUs of the last answer", "state")
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
        for state in ("up", "degraded", "down", "unknown"):
            gpus.add_metric([label, state], sum(gpu.state == state for gpu in agent.gpus))
    return [status, uptime, poor, interval, next_ping, last_ping, gpus]
