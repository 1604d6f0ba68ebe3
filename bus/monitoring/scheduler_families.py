"""The figures of schedulers as Prometheus metrics. No I/O: answers in, families out.

Each has the label `instance`, so that rates are right with several schedulers.
"""

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from bus.contract.questions import SchedulerStats
from bus.monitoring.families import REFUSED_REPLIES, counter, gauge, histogram


def scheduler_families(stats: SchedulerStats) -> list[Metric]:
    """What one scheduler has counted since its start, and what it waits for now."""
    return [
        *_ping_families(stats),
        *_waiting_families(stats),
        *_trouble_families(stats),
        *_bus_families(stats),
    ]


def _ping_families(stats: SchedulerStats) -> list[Metric]:
    pings = CounterMetricFamily(
        "gpuping_pings",
        "Ping outcomes recorded",
        labels=["verdict", "instance"],
    )
    for verdict, count in sorted(stats.verdicts.items()):
        pings.add_metric([verdict, stats.instance], count)
    return [
        pings,
        histogram(
            "ping_seconds",
            "Time until an agent answered",
            stats.ping_seconds,
            stats.ping_seconds_sum,
            instance=stats.instance,
        ),
        histogram(
            "ping_late_seconds",
            "Time from due to pinged",
            stats.late_seconds,
            stats.late_seconds_sum,
            instance=stats.instance,
        ),
        _counter("commits", "Atomic batches of outcomes", stats, stats.commits),
        _gauge("in_flight_pings", "Pings waiting for their answer", stats, stats.in_flight),
        _gauge("in_flight_limit", "PING_MAX_CONCURRENT_AGENTS", stats, stats.in_flight_limit),
        _gauge("started_timestamp_seconds", "When it started", stats, stats.started_at.timestamp()),
        _gauge("known_schedulers", "Schedulers that it hears, itself too", stats, stats.schedulers),
    ]


def _waiting_families(stats: SchedulerStats) -> list[Metric]:
    return [
        _gauge("waiting_pings", "Due pings that wait for their turn", stats, stats.waiting),
        _counter(
            "held_back_seconds",
            "Time in which PING_MAX_CONCURRENT_AGENTS held pings back",
            stats,
            stats.held_back_seconds,
        ),
        _gauge(
            "held_pings",
            "Pings held until the history stream has their agent's last state",
            stats,
            stats.held,
        ),
        _gauge(
            "holding_seconds",
            "For how long pings have been held without a break",
            stats,
            stats.holding_seconds,
        ),
        _counter(
            "held_seconds",
            "Time in which a ping was held for the history stream",
            stats,
            stats.held_seconds,
        ),
        _gauge(
            "unsigned_hosts",
            "Hosts whose reports count although no key of theirs is known",
            stats,
            stats.unsigned_hosts,
        ),
        _counter(
            "postponed_timers",
            "Timers of overdue agents that were moved, so that not all fire at once",
            stats,
            stats.timers_put_off,
        ),
    ]


def _trouble_families(stats: SchedulerStats) -> list[Metric]:
    return [
        _counter(
            "lost_races",
            "Outcomes that another scheduler had recorded already",
            stats,
            stats.lost_races,
        ),
        _counter("bad_messages", "Messages that could not be read", stats, stats.bad_messages),
        _counter("refused_replies", REFUSED_REPLIES, stats, stats.refused_replies),
        _counter(
            "dropped_events",
            "Live events that were not sent, because pings had precedence",
            stats,
            stats.events_dropped,
        ),
        _gauge(
            "differing_policies",
            "Schedulers that judge by other rules",
            stats,
            len(stats.differing_policies),
        ),
        _gauge(
            "layout_problems",
            "Streams that are not as the settings want them",
            stats,
            len(stats.layout_problems),
        ),
        _gauge(
            "bucket_usable",
            "Whether the bucket is the one that the fleet was loaded from",
            stats,
            stats.bucket_problem is None,
        ),
        _counter(
            "lost_enrolments",
            "Agents that were registered and are gone from the bucket",
            stats,
            stats.lost_enrolments,
        ),
    ]


def _bus_families(stats: SchedulerStats) -> list[Metric]:
    """The bus as this scheduler sees it; what it has not measured yet is left out."""
    stored = GaugeMetricFamily(
        "gpuping_bus_stored_bytes",
        "Bytes that JetStream holds on a nats-server",
        labels=["server", "instance"],
    )
    limit = GaugeMetricFamily(
        "gpuping_bus_limit_bytes",
        "Bytes that JetStream may hold on a nats-server",
        labels=["server", "instance"],
    )
    for server in stats.bus_servers:
        labels = [server.name, stats.instance]
        stored.add_metric(labels, server.stored_bytes)
        limit.add_metric(labels, server.limit_bytes)
    families: list[Metric] = [
        _gauge("bucket_bytes", "Size of the bucket on the bus", stats, stats.bucket_bytes),
        stored,
        limit,
    ]
    if stats.bus_clock_offset_seconds is not None:
        text = "The bus server's clock less the scheduler's"
        families.append(_gauge("clock_offset_seconds", text, stats, stats.bus_clock_offset_seconds))
    text = "How far another scheduler's clock is from the scheduler's, at most"
    difference = stats.peer_clock_difference_seconds
    families.append(_gauge("peer_clock_difference_seconds", text, stats, difference))
    return families


def _gauge(
    name: str,
    text: str,
    stats: SchedulerStats,
    value: float,
) -> Metric:
    return gauge(f"scheduler_{name}", text, value, instance=stats.instance)


def _counter(
    name: str,
    text: str,
    stats: SchedulerStats,
    value: float,
) -> Metric:
    return counter(f"scheduler_{name}", text, value, instance=stats.instance)
