"""`/metrics`: Prometheus text about this process and about the fleet at the moment of the scrape.

What the scheduler or storage does not answer is left out and never shown as 0;
`gpuping_service_up` says which of them answered.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.params import QueryParameter
from prometheus_client.core import GaugeMetricFamily, Metric

from bus.client.fleet_client import OPTIONAL_SECONDS, FleetClient, optional
from bus.contract.questions import Agent, ListRequest, OverviewRequest
from bus.monitoring.alerts_families import alerts_families
from bus.monitoring.exposition import exposition
from bus.monitoring.families import REFUSED_REPLIES, counter, gauge, merged
from bus.monitoring.scheduler_families import scheduler_families
from bus.monitoring.storage_families import storage_families
from gateway import metric_families
from gateway.broadcast import EventBroadcast
from gateway.request_metrics import RequestMetrics
from gateway.web.connections import Connections
from gateway.web.problems import error_responses


@get(
    "/metrics",
    media_type="text/plain",
    tags=["operation"],
    summary="Prometheus metrics",
    responses=error_responses(401),
)
async def metrics(
    request: Request[Any, Any, Any],
    request_metrics: NamedDependency[RequestMetrics],
    fleet_client: NamedDependency[FleetClient],
    broadcast: NamedDependency[EventBroadcast],
    connections: NamedDependency[Connections],
    agents: Annotated[bool, QueryParameter(description="also one set of series an agent")] = False,
) -> Response[bytes]:
    """The metrics of this gateway, of the storage that answers, and of every scheduler.

    A scheduler's counters carry its `instance`, so that rates are right with several schedulers.
    """
    fleet, schedulers, overview, storage_stats, alerts_stats = await asyncio.gather(
        optional(fleet_client.fleet(OPTIONAL_SECONDS)),
        fleet_client.every_scheduler(OPTIONAL_SECONDS),
        optional(fleet_client.overview(OverviewRequest(recent=0), OPTIONAL_SECONDS)),
        optional(fleet_client.storage_stats(OPTIONAL_SECONDS)),
        optional(fleet_client.alerts.stats(OPTIONAL_SECONDS)),
    )
    families = [
        _service_up(
            scheduler=fleet is not None,
            storage=storage_stats is not None,
            alerts=alerts_stats is not None,
        ),
        _service_ready(
            scheduler=fleet is not None and fleet.trouble is None,
            storage=storage_stats is not None and storage_stats.ingest_waiting is None,
        ),
        gauge(
            "bus_connected",
            "Whether the bus is connected",
            float(fleet_client.is_connected),
        ),
        gauge(
            "gateway_event_streams",
            "Open live streams",
            broadcast.subscriber_count,
        ),
        counter(
            "gateway_refused_replies",
            REFUSED_REPLIES,
            fleet_client.refused_reply_count,
        ),
    ]
    families += metric_families.connection_families(connections)
    families += metric_families.fleet_families(fleet)
    for scheduler_stats in schedulers:
        families += scheduler_families(scheduler_stats)
    families += metric_families.uptime_families(overview)
    if storage_stats is not None:
        families += storage_families(storage_stats)
    if alerts_stats is not None:
        families += alerts_families(alerts_stats)
    if agents:
        every_agent = [agent async for agent in _every_agent(fleet_client)]
        families += metric_families.agent_families(every_agent)
    shown = exposition(
        [*request_metrics.registry.collect(), *merged(families)], request.headers.get("accept", "")
    )
    return Response(shown.text, headers={"Content-Type": shown.content_type})


def _service_up(**answered: bool) -> Metric:
    text = "Whether a service behind the gateway answers"
    return _by_service("gpuping_service_up", text, answered)


def _service_ready(**ready: bool) -> Metric:
    text = "Whether a service behind the gateway can do its work"
    return _by_service("gpuping_service_ready", text, ready)


def _by_service(
    name: str,
    text: str,
    values: dict[str, bool],
) -> Metric:
    family = GaugeMetricFamily(name, text, labels=["service"])
    for service, value in values.items():
        family.add_metric([service], float(value))
    return family


async def _every_agent(fleet_client: FleetClient) -> AsyncIterator[Agent]:
    """Every registered agent, read page by page."""
    cursor: str | None = None
    while True:
        page = await fleet_client.agents(ListRequest(cursor=cursor))
        for agent in page.agents:
            yield agent
        cursor = page.next_cursor
        if cursor is None:
            return
