"""The figures of the alerts service as Prometheus metrics. No I/O: answers in, families out."""

from typing import get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from bus.contract.alerts import AlertsStats, RuleName
from bus.monitoring.families import gauge


def alerts_families(stats: AlertsStats) -> list[Metric]:
    """What is wrong by the alerts service, and what it could not send."""
    active = GaugeMetricFamily("gpuping_alerts_active", "What is wrong, by rule", labels=["rule"])
    for rule in get_args(RuleName):
        active.add_metric([rule], stats.active.get(rule, 0))
    text = "Notifications that a target took, since the alerts service that answered has started"
    sent = CounterMetricFamily("gpuping_alerts_notifications_sent", text, labels=["target"])
    for target, count in sorted(stats.sent.items()):
        sent.add_metric([target], count)
    text = "Notifications that are not sent: waiting, refused and tried again, or given up"
    unsent = GaugeMetricFamily("gpuping_alerts_notifications", text, labels=["state"])
    unsent.add_metric(["waiting"], stats.waiting - stats.retrying)
    unsent.add_metric(["retrying"], stats.retrying)
    unsent.add_metric(["failed"], stats.failed)
    return [
        active,
        sent,
        unsent,
        gauge("alerts_held_changes", "Changes that wait to be told", stats.held),
        gauge(
            "alerts_oldest_unsent_seconds",
            "For how long the oldest notification waits to be sent",
            stats.oldest_waiting_seconds,
        ),
    ]
