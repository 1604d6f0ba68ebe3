"""What the enrolment service shows to Prometheus. No I/O: counts in, families out."""

from collections.abc import Mapping
from typing import Literal, get_args

from prometheus_client.core import CounterMetricFamily, Metric

from bus.monitoring.families import REFUSED_REPLIES, counter, gauge

Answered = Literal["token_made", "host_enrolled", "credentials_renewed"]


def families(
    answered: Mapping[Answered, int],
    *,
    is_connected: bool,
    refused_replies: int,
) -> list[Metric]:
    """What was granted since the start, by its kind."""
    text = "Enrolment tokens made, hosts enrolled and credentials renewed"
    granted = CounterMetricFamily("gpuping_enrolments_granted", text, labels=["kind"])
    for kind in get_args(Answered):
        granted.add_metric([kind], answered.get(kind, 0))
    return [
        gauge("bus_connected", "Whether the bus is connected", is_connected),
        counter("enrolment_refused_replies", REFUSED_REPLIES, refused_replies),
        granted,
    ]
