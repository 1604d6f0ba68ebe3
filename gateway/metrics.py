"""Metrics in Prometheus text: the gateway's own, what it hears on the bus, and the fleet as it is at the scrape.

Pings are counted from live events, so that any number of schedulers add up; a counter begins at 0 with each
gateway. No label of the always-present series grows with the fleet; `?agents=1` adds one series set an agent.
"""

import asyncio
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, get_args

from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.params import QueryParameter
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from bus.messages import Status
from bus.questions import Agent, Event, Fleet, ListRequest, OverviewReply, OverviewRequest, StorageStats
from bus.services import VERSION
from gateway.backends import EMBELLISHMENT_SECONDS, Backends, optional
from gateway.live import Hub
from gateway.problems import described

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_REQUEST_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_PING_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """What this process counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = self._counter("gateway_requests", "HTTP requests answered", "method", "route", "code")
        self._seconds = self._histogram("gateway_request_seconds", "Time to answer", _REQUEST_SECONDS, "route")
        self._pings = self._counter("pings", "Ping outcomes heard since this gateway started", "verdict", "outcome")
        self._answers = self._histogram("ping_seconds", "Time until an agent answered", _PING_SECONDS)
        self._late = self._histogram("ping_late_seconds", "Time between due and pinged", _PING_SECONDS)
        build = Gauge("build_info", "Always 1", ["version"], namespace="gpuping", registry=self.registry)
        build.labels(VERSION).set(1)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, namespace="gpuping", registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(name, text, labels, namespace="gpuping", registry=self.registry, buckets=buckets)

    def observe_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """One request; `route` is the template, never a path that holds an id."""
        self._requests.labels(method if method in _METHODS else "other", route, str(status)).inc()
        if route != "/ping-system/events":  # its time is how long somebody watched
            self._seconds.labels(route).observe(seconds)

    def observe_event(self, event: Event) -> None:
        """One outcome, as the bus told it."""
        if event.ping is None:
            return
        self._pings.labels(event.ping.verdict, event.ping.outcome).inc()
        if event.ping.response_ms is not None:
            self._answers.observe(event.ping.response_ms / 1000)
        if event.ping.late_ms is not None:
            self._late.observe(max(0.0, event.ping.late_ms / 1000))


class _Scrape(Collector):
    """The process's own metrics and those read for this scrape, as one."""

    def __init__(self, registry: CollectorRegistry, families: Iterable[Metric]) -> None:
        self._registry = registry
        self._families = families

    def collect(self) -> Iterator[Metric]:
        yield from self._registry.collect()
        yield from self._families


@get("/metrics", media_type="text/plain", tags=["operation"], summary="Prometheus metrics", responses=described(401))
async def metrics(
    request: Request[Any, Any, Any],
    metrics: NamedDependency[Metrics],
    backends: NamedDependency[Backends],
    hub: NamedDependency[Hub],
    agents: Annotated[bool, QueryParameter(description="also one set of series an agent")] = False,
) -> Response[bytes]:
    """What a service behind us does not answer is left out, and `gpuping_service_up` says so."""
    fleet, overview, storage = await asyncio.gather(
        optional(backends.fleet(EMBELLISHMENT_SECONDS)),
        optional(backends.overview(OverviewRequest(recent=0), EMBELLISHMENT_SECONDS)),
        optional(backends.storage_stats(EMBELLISHMENT_SECONDS)),
    )
    families = [*_gateway(backends, hub, fleet, storage), *_fleet(fleet), *_history(overview, storage)]
    if agents:
        families += per_agent([agent async for agent in _every_agent(backends)])
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(_Scrape(metrics.registry, families)), headers={"Content-Type": content_type})


def _gauge(name: str, text: str, value: float | None) -> list[Metric]:
    return [] if value is None else [GaugeMetricFamily(f"gpuping_{name}", text, value=value)]


def _gateway(backends: Backends, hub: Hub, fleet: Fleet | None, storage: StorageStats | None) -> list[Metric]:
    up = GaugeMetricFamily("gpuping_service_up", "Whether a service behind the gateway answers", labels=["service"])
    up.add_metric(["scheduler"], float(fleet is not None))
    up.add_metric(["storage"], float(storage is not None))
    connected = _gauge("bus_connected", "Whether the bus is connected", float(backends.client.is_connected))
    return [up, *connected, *_gauge("gateway_event_streams", "Open live streams", hub.viewers)]


def _fleet(fleet: Fleet | None) -> list[Metric]:
    if fleet is None:
        return []
    by_status = GaugeMetricFamily("gpuping_agents", "Registered agents", labels=["status"])
    for status in get_args(Status):
        by_status.add_metric([status], fleet.by_status.get(status, 0))
    due = _gauge("due_agents", "Agents whose next ping has come", fleet.due)
    return [by_status, *due, *_gauge("pings_in_flight", "Pings waiting for their answer", fleet.in_flight)]


def _history(overview: OverviewReply | None, storage: StorageStats | None) -> list[Metric]:
    families: list[Metric] = []
    if overview and overview.uptime_percent is not None:
        text = "Fleet uptime of the last 24 hours, by summed seconds"
        families += _gauge("fleet_uptime_ratio", text, overview.uptime_percent / 100)
    if storage:
        families += _gauge("ingest_lag_outcomes", "Outcomes on the bus that are not yet history", storage.lag)
        families += _gauge("history_rows", "Outcomes in history", storage.rows)
        families += _gauge("history_missing_outcomes", "Outcomes that never reached history", storage.missing_seqs)
    return families


async def _every_agent(backends: Backends) -> Any:
    cursor: str | None = None
    while True:
        page = await backends.agents(ListRequest(cursor=cursor))
        for agent in page.agents:
            yield agent
        cursor = page.next_cursor
        if cursor is None:
            return


def per_agent(agents: list[Agent]) -> list[Metric]:
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
