"""The uptime statement of one agent's month, the rules for its replay, and the requests for both.

Seconds are exact to the millisecond and add up. Percents are ratios of them, and None where no time
can be judged. A window that could not be divided exactly at the month's edge is listed as prorated.
"""

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from bus.contract.messages import (
    DurationSeconds,
    Enrolment,
    GpuChange,
    Incident,
    Message,
    Percent,
    Span,
    SummedSeconds,
)
from bus.contract.questions import PageLimit
from bus.contract.subjects import END

# a datetime can represent the bounds of every month that this matches
MONTH_PATTERN = r"^(?!0000|9999-12)[0-9]{4}-(0[1-9]|1[0-2])" + END
Month = Annotated[str, Meta(pattern=MONTH_PATTERN)]
# A sum over many windows has no bound of its own.
TotalSeconds = Annotated[float, Meta(ge=0.0)]
PolicyText = Annotated[str, Meta(max_length=100_000)]  # a TOML file, or a ready-made one's name
Share = Annotated[float, Meta(ge=0.0, le=1.0)]
StatementFormat = Literal["json", "csv", "parquet", "html", "bundle"]

# the policies that come with the program (storage/statements/policies/*.toml), for help texts
READY_MADE = {
    "livepeer": (
        "each report's window by its uptime: "
        "99 % full rate, from 95 % half, from 90 % a tenth, below none"
    ),
    "runpod": (
        "the whole month: (minutes - downtime + 10) / minutes; "
        "full rate from 98 %, below it out of the pool"
    ),
}


class Band(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """At an uptime of at least `at_least` percent, the share `rate` of the full rate is paid."""

    at_least: Percent
    rate: Share


class PayRules(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How uptime becomes pay. A policy file is this Struct as TOML (not the ping policy).

    With `basis` month, the uptime of the whole month decides; with window, each report's window is
    paid by its own uptime. `forgiven_seconds` of downtime count as up. Below an uptime of
    `leaves_below` percent the host leaves the pool and nothing is paid.
    """

    name: Annotated[str, Meta(min_length=1, max_length=100)]
    source: Annotated[str, Meta(max_length=500)] = ""
    basis: Literal["month", "window"] = "month"
    bands: Annotated[tuple[Band, ...], Meta(min_length=1, max_length=100)]
    forgiven_seconds: DurationSeconds = 0.0
    leaves_below: Percent | None = None
    degraded_counts_as_up: bool = True
    unknown_counts: Literal["down", "excused"] = "down"


class BookedMaintenance(Struct, kw_only=True, frozen=True):
    """Maintenance that an operator booked ahead of time; what of it lay in windows is excused."""

    since: datetime
    until: datetime
    reason: str


class StatementRequest(Message, kw_only=True, frozen=True):
    """Asks for an agent's month.

    `enrolments` and `gpu_changes`, oldest first, and `maintenance` come from the registry.
    Without enrolments, the agent counts as enrolled from its first outcome in history on.
    With `threshold` or `policy` (the text of a TOML file, or the name of a ready-made one) the
    statement also has a replay: what the same month would pay under these rules.
    """

    month: Month
    format: StatementFormat = "json"
    enrolments: Annotated[tuple[Enrolment, ...], Meta(max_length=1_001)] = ()
    threshold: Percent | None = None
    policy: PolicyText | None = None
    maintenance: Annotated[tuple[BookedMaintenance, ...], Meta(max_length=1_000)] = ()
    gpu_changes: tuple[GpuChange, ...] = ()


class Account(Struct, kw_only=True, frozen=True):
    """The month of one GPU or of the host.

    `unreported_seconds` is enrolled time that no report covers. It never counts as up.
    """

    seconds: SummedSeconds
    unreported_seconds: TotalSeconds
    coverage_percent: Percent | None
    uptime_percent: Percent | None


class GpuAccount(Account, kw_only=True, frozen=True):
    """The month of one GPU.

    `enrolled_seconds` is the host's enrolled time from the GPU's first report to its last. A GPU
    that is in the month's first and last report counts as present throughout.
    """

    uuid: str
    name: str
    index: int | None
    enrolled_seconds: TotalSeconds


class Split(Struct, kw_only=True, frozen=True):
    """A report's window that crosses the month's edge, and how its seconds were divided there.

    `exact`: by the incidents in the report. `prorated`: in proportion to the time on each side.
    """

    ping_seq: int
    since: datetime
    until: datetime
    at: datetime
    method: Literal["exact", "prorated"]


class Pay(Struct, kw_only=True, frozen=True):
    """The pay of a month under some rules: `paid_percent` of the full rate over the enrolled time.

    `due_seconds` are those that could be paid for (excused time cannot), `paid_seconds` as many at
    the full rate.
    """

    rules: str
    source: str
    uptime_percent: Percent | None
    paid_percent: Percent | None
    in_pool: bool
    good_pings: int
    poor_pings: int
    due_seconds: TotalSeconds = 0.0
    paid_seconds: TotalSeconds = 0.0


class Replay(Struct, kw_only=True, frozen=True):
    """The same month under the rules in force (`now`) and under others (`then`)."""

    now: Pay
    then: Pay
    change_percent: float
    change: Literal["gains", "loses", "same"]


class LeftOut(Struct, kw_only=True, frozen=True):
    """An outcome that cannot be accounted for, and why."""

    agent_id: str
    ping_seq: int
    pinged_at: datetime
    reason: str


class Statement(Message, kw_only=True, frozen=True):
    """An agent's month. `final`: the month is over, and no later report can change it.

    `since` and `until` are the month's first and last enrolled times; while the month runs, `until`
    is the last outcome. `enrolled` has each enrolled interval of the month where there are several.
    An enrolment that has ended counts up to its last outcome. History before `forgotten_until` is
    no longer kept and not counted.

    `history_lost` has the enrolled time whose outcome never reached history though the host
    answered: our loss, which is excused. `remarks` counts the outcomes of the month with each
    remark. `simulated`: some outcome of the month was of GPUs that do not exist. `conflicts` has
    the windows, joined where they touch, of the reports that came while two agents answered in
    turn under this id. `maintenance` has the bookings of the month, the earliest first.
    """

    agent_id: str
    month: str
    generated_at: datetime
    since: datetime
    until: datetime
    final: bool
    enrolled_seconds: TotalSeconds
    host: Account
    gpus: tuple[GpuAccount, ...]
    incidents: tuple[Incident, ...]
    splits: tuple[Split, ...]
    pings: int
    answered: int
    missed: int
    excused: int
    missing_seqs: int
    enrolled: tuple[Span, ...] = ()
    forgotten_until: datetime | None = None
    replay: Replay | None = None
    history_lost: tuple[Span, ...] = ()
    remarks: dict[str, int] = msgspec.field(default_factory=dict)
    simulated: bool = False
    left_out: tuple[LeftOut, ...] = ()
    conflicts: tuple[Span, ...] = ()
    maintenance: tuple[BookedMaintenance, ...] = ()


class FleetReplayRequest(Message, kw_only=True, frozen=True):
    """Asks for the whole fleet's month under other rules.

    `threshold` and `policy` are as in StatementRequest. JSON lists the `limit` agents whose pay
    changes most; CSV and Parquet are files with every agent.
    """

    month: Month
    format: Literal["json", "csv", "parquet"] = "json"
    limit: PageLimit = 1000
    threshold: Percent | None = None
    policy: PolicyText | None = None


class AgentReplay(Struct, kw_only=True, frozen=True):
    """One agent's month under both rules. `covered_seconds` is the time that its reports cover."""

    agent_id: str
    uptime_percent: Percent | None
    now_paid_percent: Percent | None
    then_paid_percent: Percent | None
    change_percent: float
    change: Literal["gains", "loses", "same"]
    covered_seconds: TotalSeconds = 0.0


class FleetReplay(Message, kw_only=True, frozen=True):
    """Which agents gain and which lose, the greatest change first.

    At most 1,000 agents are listed; all are counted. The fleet's percents are the paid seconds of
    all agents over the seconds that could be paid for. `left_out` names the first 100 outcomes of
    the month that cannot be accounted for.
    """

    month: str
    now: str
    then: str
    gains: int
    loses: int
    same: int
    agents: tuple[AgentReplay, ...]
    now_paid_percent: Percent | None = None
    then_paid_percent: Percent | None = None
    left_out: tuple[LeftOut, ...] = ()
