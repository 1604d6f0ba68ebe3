"""Counts and times of the HTTP requests that this process answers, for Prometheus."""

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

from bus.transport.micro_services import VERSION

EVENT_STREAM_ROUTE = "/ping-system/events"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SECONDS_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class RequestMetrics:
    """The registry of this process's own metrics."""

    def __init__(self) -> None:
        # a `_created` series for each other one would double their number and tell nothing
        disable_created_metrics()  # type: ignore[no-untyped-call]  # published half typed
        self.registry = CollectorRegistry()
        common: dict[str, Any] = {"namespace": "gpuping", "registry": self.registry}
        self._requests = Counter(
            "gateway_requests",
            "HTTP requests answered",
            ["method", "route", "code"],
            **common,
        )
        self._seconds = Histogram(
            "gateway_request_seconds",
            "Time to answer",
            ["route"],
            buckets=_SECONDS_BUCKETS,
            **common,
        )
        build_info = Gauge("build_info", "Always 1", ["version"], **common)
        build_info.labels(VERSION).set(1)

    def observe_request(
        self,
        method: str,
        route: str,
        status: int,
        seconds: float,
    ) -> None:
        """Counts a request. `route` is the route's template: a path would add a series per id."""
        known_method = method if method in _METHODS else "other"
        self._requests.labels(known_method, route, str(status)).inc()
        # the time of an event stream is how long somebody watched it
        if route != EVENT_STREAM_ROUTE:
            self._seconds.labels(route).observe(seconds)
