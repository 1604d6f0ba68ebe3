"""The fleet at one moment, as the dashboard page and `gpuping top` show it."""

from datetime import datetime

from msgspec import Struct

from bus.contract.alerts import AlertsSummary
from bus.contract.messages import Percent, SummedSeconds
from bus.contract.questions import Agent, Change, FleetSums, GpuCounts, Ping, Trouble

WORST_AGENTS = 100
RECENT_PINGS = 50
CHANGES = 30
TROUBLES = 30
PLACE_LABEL = "site"
PERIOD_HOURS = 24.0
LONGER_HOURS = (168.0, 720.0)  # a week and thirty days


class Totals(Struct, kw_only=True, frozen=True):
    """Agents registered now, pings and misses since they were registered, pings in flight now."""

    agents: int
    pings: int
    missed: int
    in_flight: int


class FleetUptime(Struct, kw_only=True, frozen=True):
    """The whole fleet over the period, from summed seconds.

    Null where nothing was observed, or while storage does not answer.
    """

    period_hours: float
    uptime_percent: Percent | None
    seconds: SummedSeconds | None
    verdicts: dict[str, int]
    unreported_seconds: float = 0.0


class Dashboard(Struct, kw_only=True, frozen=True):
    """The WORST_AGENTS worst agents, the RECENT_PINGS newest outcomes, and the totals.

    `response_ms` and `late_ms` are keyed by percentile: p50, p95, p99. `degraded` names the
    services that cannot work, whose parts may be missing, and `reasons` says why, by service.
    `changes` are the newest outcomes that differ in kind from the agent's one before, `troubles`
    what began or ended last at GPUs and hosts, and `sites` the label `site` of the agents of both.
    `longer` is the fleet's uptime of a week and of thirty days, `gpus` the GPUs by their state at
    the last ping.
    `alerts` is None where no alerts service answers.
    """

    generated_at: datetime
    totals: Totals
    by_status: dict[str, int]
    uptime: FleetUptime
    response_ms: dict[str, float | None]
    late_ms: dict[str, float | None]
    due: int
    next_ping_at: datetime | None
    agents: tuple[Agent, ...]
    recent: tuple[Ping, ...]
    degraded: tuple[str, ...]
    reasons: dict[str, str] = {}
    gpus: GpuCounts | None = None
    base_interval_minutes: float | None = None
    changes: tuple[Change, ...] = ()
    troubles: tuple[Trouble, ...] = ()
    sites: dict[str, str] = {}
    longer: tuple[FleetSums, ...] = ()
    alerts: AlertsSummary | None = None
