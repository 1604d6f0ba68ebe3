"""Metrics in Prometheus text: the gateway's own, and those of the fleet as they are at the scrape.

What a service behind us does not answer is left out, never shown as 0; `gpuping_service_up` says so.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Annotated, Any

from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.params import QueryParameter
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from bus.contract.questions import Agent, ListRequest, OverviewRequest
from bus.transport.micro_services import VERSION
from gateway import metric_families
from gateway.backends import EMBELLISHMENT_SECONDS, Backends, optional
from gateway.broadcast import Hub
from gateway.web.problems import error_responses

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_REQUEST_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """What this process counts."""

    def __init__(self) -> None:
        # the library's `_created` series double the number of series and tell nothing
        disable_created_metrics()  # type: ignore[no-untyped-call]  # published half typed
        self.registry = CollectorRegistry()
        ours: dict[str, Any] = {"namespace": "gpuping", "registry": self.registry}
        labels = ["method", "route", "code"]
        self._requests = Counter("gateway_requests", "HTTP requests answered", labels, **ours)
        self._seconds = Histogram(
            "gateway_request_seconds", "Time to answer", ["route"], buckets=_REQUEST_SECONDS, **ours
        )
        Gauge("build_info", "Always 1", ["version"], **ours).labels(VERSION).set(1)

    def observe_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """One request; `route` is the template, never a path that holds an id."""
        self._requests.labels(method if method in _METHODS else "other", route, str(status)).inc()
        if route != "/ping-system/events":  # its time is how long somebody watched
            self._seconds.labels(route).observe(seconds)


class _Scrape(Collector):
    """The process's own metrics and those read for this scrape, as one."""

    def __init__(self, registry: CollectorRegistry, read: Iterable[Metric]) -> None:
        self._registry = registry
        self._read = read

    def collect(self) -> Iterator[Metric]:
        yield from self._registry.collect()
        yield from self._read


@get(
    "/metrics",
    media_type="text/plain",
    tags=["operation"],
    summary="Prometheus metrics",
    responses=error_responses(401),
)
async def metrics(
    request: Request[Any, Any, Any],
    metrics: NamedDependency[Metrics],
    backends: NamedDependency[Backends],
    hub: NamedDependency[Hub],
    agents: Annotated[bool, QueryParameter(description="also one set of series an agent")] = False,
) -> Response[bytes]:
    """Of several schedulers one answers a scrape; its counters carry its `instance`, so that rates stay true."""
    fleet, scheduler, overview, storage = await asyncio.gather(
        optional(backends.fleet(EMBELLISHMENT_SECONDS)),
        optional(backends.scheduler_stats(EMBELLISHMENT_SECONDS)),
        optional(backends.overview(OverviewRequest(recent=0), EMBELLISHMENT_SECONDS)),
        optional(backends.storage_stats(EMBELLISHMENT_SECONDS)),
    )
    up = {"scheduler": fleet is not None, "storage": storage is not None}
    read = [
        *_gateway(backends, hub, up),
        *metric_families.of_fleet(fleet),
        *metric_families.of_scheduler(scheduler),
    ]
    read += metric_families.of_storage(overview, storage)
    if agents:
        read += metric_families.of_agents([agent async for agent in _every_agent(backends)])
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(_Scrape(metrics.registry, read)), headers={"Content-Type": content_type})


def _gateway(backends: Backends, hub: Hub, up: dict[str, bool]) -> list[Metric]:
    services = GaugeMetricFamily(
        "gpuping_service_up", "Whether a service behind the gateway answers", labels=["service"]
    )
    for name, answers in up.items():
        services.add_metric([name], float(answers))
    connected = metric_families.gauge(
        "bus_connected", "Whether the bus is connected", float(backends.client.is_connected)
    )
    return [
        services,
        *connected,
        *metric_families.gauge("gateway_event_streams", "Open live streams", hub.viewers),
    ]


async def _every_agent(backends: Backends) -> AsyncIterator[Agent]:
    cursor: str | None = None
    while True:
        page = await backends.agents(ListRequest(cursor=cursor))
        for agent in page.agents:
            yield agent
        cursor = page.next_cursor
        if cursor is None:
            return
