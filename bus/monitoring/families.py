"""Metric families of gpuping: how they are named and made. Needs prometheus-client.

Units are base units (seconds, bytes, ratios), as `promtool check metrics` wants them.
"""

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from bus.transport.micro_services import VERSION

PREFIX = "gpuping_"
REFUSED_REPLIES = "Questions that were dropped, because their reply subject is no inbox"


def gauge(
    name: str,
    text: str,
    value: float,
    **labels: str,
) -> Metric:
    """The gauge `gpuping_<name>` with one sample."""
    family = GaugeMetricFamily(f"{PREFIX}{name}", text, labels=tuple(labels))
    family.add_metric(tuple(labels.values()), float(value))
    return family


def counter(
    name: str,
    text: str,
    value: float,
    **labels: str,
) -> Metric:
    """The counter `gpuping_<name>_total` with one sample."""
    family = CounterMetricFamily(f"{PREFIX}{name}", text, labels=tuple(labels))
    family.add_metric(tuple(labels.values()), float(value))
    return family


def histogram(
    name: str,
    text: str,
    counts: dict[str, int],
    total: float,
    **labels: str,
) -> Metric:
    """The histogram `gpuping_<name>`; `counts` holds the number of values up to each bound."""
    family = HistogramMetricFamily(f"{PREFIX}{name}", text, labels=tuple(labels))
    family.add_metric(tuple(labels.values()), list(counts.items()), total)
    return family


def merged(families: list[Metric]) -> list[Metric]:
    """The families with those of one name joined: each name may stand once in an answer."""
    by_name: dict[str, Metric] = {}
    for family in families:
        known = by_name.setdefault(family.name, family)
        if known is not family:
            known.samples.extend(family.samples)
    return list(by_name.values())


def build_info() -> Metric:
    """The version as a label."""
    return gauge("build_info", "Always 1", 1.0, version=VERSION)
