"""The part of `GET /ping-system/dashboard` that the terminal shows."""

from datetime import datetime

from msgspec import Struct

from bus.contract.questions import Agent, Ping

WORST_AGENTS = 100  # on a dashboard; the page in the browser lists as many


class Totals(Struct, kw_only=True, frozen=True):
    """How many agents are registered now, and how many pings and misses there ever were."""

    agents: int
    pings: int
    missed: int


class FleetUptime(Struct, kw_only=True, frozen=True):
    """The fleet's uptime of the last 24 hours. None: nothing was observed, or storage is away."""

    uptime_percent: float | None = None


class Dashboard(Struct, kw_only=True, frozen=True):
    """`response_ms` is keyed by percentile: p50, p95, p99."""

    generated_at: datetime
    totals: Totals
    by_status: dict[str, int]
    due: int
    uptime: FleetUptime = FleetUptime()
    response_ms: dict[str, float | None] = {}
    next_ping_at: datetime | None = None
    agents: tuple[Agent, ...] = ()
    recent: tuple[Ping, ...] = ()
