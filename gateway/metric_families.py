"""Answers about the fleet as Prometheus metrics. No I/O: answers in, families out.

Only the families of `agent_families` have a label for each agent. They are served on request only,
because their number of series grows with the fleet.
"""

from collections.abc import Iterable
from typing import get_args

from prometheus_client.core import GaugeMetricFamily, Metric

from bus.contract.messages import GpuState, Status
from bus.contract.questions import Agent, Fleet, OverviewReply
from bus.monitoring.families import counter, gauge
from gateway.web.connections import Connections


def connection_families(connections: Connections) -> list[Metric]:
    """How many connections clients hold, and how many had to be refused or ended."""
    return [
        gauge("gateway_connections", "Open connections of clients", len(connections)),
        gauge("gateway_connections_limit", "Most connections of clients", connections.limit),
        counter(
            "gateway_connections_exhausted",
            "Connections that were refused or ended because too many were open",
            connections.exhausted_count,
        ),
        counter(
            "gateway_connections_late",
            "Connections that were ended because their client sent or took too slowly",
            connections.late_count,
        ),
    ]


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


def uptime_families(overview: OverviewReply | None) -> list[Metric]:
    """The fleet's uptime. None, or a fleet that was never judged, gives no families."""
    if overview is None or overview.uptime_percent is None:
        return []
    text = "Fleet uptime of the last 24 hours, by summed seconds"
    return [gauge("fleet_uptime_ratio", text, overview.uptime_percent / 100)]


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
