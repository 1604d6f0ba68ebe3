"""What agentd shows to Prometheus, made from its answers. No I/O."""

from typing import get_args

from prometheus_client.core import GaugeMetricFamily, Metric

from bus.contract.agent_answers import AgentHealth
from bus.contract.messages import GpuState, UptimeReport
from bus.monitoring.families import REFUSED_REPLIES, build_info, counter, gauge


def families(health: AgentHealth, report: UptimeReport) -> list[Metric]:
    """The daemon's own state, and its GPUs by state as a look would report them now."""
    gpus = GaugeMetricFamily("gpuping_agentd_gpus", "GPUs by state", labels=["state"])
    counts = dict.fromkeys(get_args(GpuState), 0)
    for gpu in report.gpus:
        counts[gpu.state] += 1
    for state, count in counts.items():
        gpus.add_metric([state], count)
    shown = [
        build_info(),
        gpus,
        counter("agentd_checks", "Checks of all GPUs", health.checks),
        counter(
            "agentd_dropped_checks", "Checks that were skipped or failed", health.dropped_samples
        ),
        gauge(
            "agentd_check_interval_seconds",
            "Time between two checks",
            health.check_interval_seconds,
        ),
        gauge("agentd_healthy", "Whether samples come in time", health.status == "ok"),
        gauge("agentd_simulated", "Whether the GPUs are simulated", health.simulated),
        gauge("agentd_ledger_bytes", "Size of the ledger's file", health.ledger.file_bytes),
        gauge("agentd_ledger_intervals", "Intervals in the ledger", health.ledger.intervals),
        gauge(
            "agentd_ledger_on_disk",
            "Whether the ledger reaches the disk",
            health.ledger.trouble is None,
        ),
        gauge("bus_connected", "Whether the bus is connected", health.bus.connected),
        counter("bus_reconnects", "Times the bus was connected again", health.bus.reconnects),
        counter("agentd_refused_replies", REFUSED_REPLIES, health.bus.refused_replies),
        gauge("agentd_registered", "Whether the registry knows the agent", health.bus.registered),
    ]
    if health.bus.credentials_expire_at is not None:
        expiry = GaugeMetricFamily(
            "gpuping_credentials_expire_timestamp_seconds",
            "When the credentials of this process for the bus expire, in seconds since 1970",
            labels=["service"],
        )
        expiry.add_metric(["agentd"], health.bus.credentials_expire_at.timestamp())
        shown.append(expiry)
    if health.last_sample_age_seconds is not None:
        text = "Age of the last sample"
        shown.append(gauge("agentd_sample_age_seconds", text, health.last_sample_age_seconds))
    return shown
