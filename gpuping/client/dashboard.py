"""The fleet at one moment, in the shape of `GET /ping-system/dashboard`, as far as the terminal shows it."""

from datetime import datetime

from msgspec import Struct

from bus.contract.questions import Agent, Ping

WORST = 100  # agents on a dashboard, as on the page


class Totals(Struct, kw_only=True, frozen=True):
    """Agents registered now; pings and misses ever."""

    agents: int
    pings: int
    missed: int


class FleetUptime(Struct, kw_only=True, frozen=True):
    """The whole fleet over the last 24 hours; None where nothing was observed, or while storage is away."""

    uptime_percent: float | None = None


class Dashboard(Struct, kw_only=True, frozen=True):
    """`response_ms` is keyed p50, p95, ..."""

    generated_at: datetime
    totals: Totals
    by_status: dict[str, int]
    due: int
    uptime: FleetUptime = FleetUptime()
    response_ms: dict[str, float | None] = {}
    next_ping_at: datetime | None = None
    agents: tuple[Agent, ...] = ()
    recent: tuple[Ping, ...] = ()
