"""What the bridge counts, for Prometheus."""

from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge

Result = Literal["answered", "unreachable", "bad_answer", "refused_address"]
RESULTS: tuple[Result, ...] = ("answered", "unreachable", "bad_answer", "refused_address")


class BridgeMetrics:
    """Requests to agents by what became of them, and how many agents are asked."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "bridge_requests",
            "Questions to agents that are asked by HTTP",
            ["result"],
            namespace="gpuping",
            registry=registry,
        )
        for result in RESULTS:
            self._requests.labels(result)
        self._agents = Gauge(
            "bridge_agents",
            "Agents that this gateway answers for by HTTP",
            namespace="gpuping",
            registry=registry,
        )

    def count(self, result: Result) -> None:
        """Counts one request."""
        self._requests.labels(result).inc()

    def show_agents(self, number: int) -> None:
        """Shows how many agents are asked by HTTP now."""
        self._agents.set(number)
