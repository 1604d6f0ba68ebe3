"""The uptime statement of one agent's month, the rules it can be replayed under, and who asks for it how.

Seconds are exact to the millisecond and add up; percents are ratios of them, None where there is nothing to
judge. What could not be divided exactly at the month's edge says so.
"""

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

from bus.contract.messages import Duration, Enrolment, Incident, Message, Percent, Seconds, Span
from bus.contract.questions import Cursor
from bus.contract.subjects import END

MONTH_PATTERN = (
    r"^(?!0000|9999-12)[0-9]{4}-(0[1-9]|1[0-2])" + END
)  # whose bounds a datetime can hold
Month = Annotated[str, Meta(pattern=MONTH_PATTERN)]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]
StatementFormat = Literal["json", "csv", "parquet", "html"]

# the policies that come with the program (storage/policies/*.toml), for whoever explains the choice
READY_MADE = {
    "livepeer": "each report's window by its uptime: 99 % full rate, from 95 % half, from 90 % a tenth, below none",
    "runpod": "the whole month: (minutes - downtime + 10) / minutes; full rate from 98 %, below it out of the pool",
}


class Band(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """From this uptime on (percent, inclusive), this share of the full rate is paid."""

    at_least: Percent
    rate: Share


class Rules(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How uptime becomes pay. A policy file is this, as TOML.

    `basis` month: one uptime for the whole month. window: each report's window is paid by its own uptime.
    `forgiven_seconds` of downtime are given back. Below `leaves_below` the host leaves the pool: nothing is paid.
    """

    name: Annotated[str, Meta(min_length=1, max_length=100)]
    source: Annotated[str, Meta(max_length=500)] = ""
    basis: Literal["month", "window"] = "month"
    bands: Annotated[tuple[Band, ...], Meta(min_length=1, max_length=100)]
    forgiven_seconds: Duration = 0.0
    leaves_below: Percent | None = None
    degraded_counts_as_up: bool = True
    unknown_counts: Literal["down", "excused"] = "down"


class StatementRequest(Message, kw_only=True, frozen=True):
    """Asks for a month. `enrolments`, oldest first, come from the registry; without them history tells when it began.

    With `threshold` or `policy` (the text of a TOML file, or the name of a ready-made one) the same month is
    shown under other rules besides.
    """

    month: Month
    format: StatementFormat = "json"
    enrolments: Annotated[tuple[Enrolment, ...], Meta(max_length=1_001)] = ()
    threshold: Percent | None = None
    policy: Annotated[str, Meta(max_length=100_000)] | None = None


class Account(Struct, kw_only=True, frozen=True):
    """One GPU's, or the host's, month. `unreported_seconds`: enrolled time that no report covers; never up."""

    seconds: Seconds
    unreported_seconds: Duration
    coverage_percent: Percent | None
    uptime_percent: Percent | None


class GpuAccount(Account, kw_only=True, frozen=True):
    """`enrolled_seconds`: the host's, from when the GPU came to when it was gone.

    It was there throughout where the month's first and last report have it.
    """

    uuid: str
    name: str
    index: int | None
    enrolled_seconds: Duration


class Split(Struct, kw_only=True, frozen=True):
    """A report's window that crosses the month's edge, and how its seconds were divided there."""

    ping_seq: int
    since: datetime
    until: datetime
    at: datetime
    method: Literal["exact", "prorated"]


class Pay(Struct, kw_only=True, frozen=True):
    """What a month is worth under some rules: `paid_percent` of the full rate over the enrolled time.

    `due_seconds` are those that could be paid for (excused time cannot), `paid_seconds` as many at the full rate.
    """

    rules: str
    source: str
    uptime_percent: Percent | None
    paid_percent: Percent | None
    in_pool: bool
    good_pings: int
    poor_pings: int
    due_seconds: Duration = 0.0
    paid_seconds: Duration = 0.0


class Replay(Struct, kw_only=True, frozen=True):
    """The same month under the rules in force and under others: who gains, who loses."""

    now: Pay
    then: Pay
    change_percent: float
    change: Literal["gains", "loses", "same"]


class Statement(Message, kw_only=True, frozen=True):
    """An agent's month. `final` once the month is over and reported, or can no longer be reported.

    Times are `[since, until)`, from the first to the last enrolled moment of the month, up to the last outcome while it
    runs; `enrolled` is each part where there are several. An enrolment that ended counts up to its last outcome.
    `forgotten_until`: what was before is no longer kept, and is not in the account.
    """

    agent_id: str
    month: str
    generated_at: datetime
    since: datetime
    until: datetime
    final: bool
    enrolled_seconds: Duration
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


class ExportRequest(Message, kw_only=True, frozen=True):
    """An agent's history as a file: the last `hours`, newest first; `limit` and `cursor` as for a page, None: all.

    `registered`: the asker knows the agent, so that no outcome yet is an empty file and not an unknown agent.
    """

    hours: Annotated[float, Meta(gt=0.0, le=87_600.0)] = 24.0
    limit: Annotated[int, Meta(ge=1, le=1_000_000_000)] | None = None
    cursor: Cursor | None = None
    format: Literal["csv", "parquet"] = "csv"
    registered: bool = False


class FleetReplayRequest(Message, kw_only=True, frozen=True):
    """Asks for the whole fleet's month under other rules; `threshold` and `policy` as in StatementRequest.

    As JSON the `limit` agents whose pay changes most are listed; CSV and Parquet are files that hold every agent.
    """

    month: Month
    format: Literal["json", "csv", "parquet"] = "json"
    limit: Annotated[int, Meta(ge=1, le=1000)] = 1000
    threshold: Percent | None = None
    policy: Annotated[str, Meta(max_length=100_000)] | None = None


class AgentReplay(Struct, kw_only=True, frozen=True):
    """One agent's month in both rules, in short. `covered_seconds`: the time that its reports account for."""

    agent_id: str
    uptime_percent: Percent | None
    now_paid_percent: Percent | None
    then_paid_percent: Percent | None
    change_percent: float
    change: Literal["gains", "loses", "same"]
    covered_seconds: Duration = 0.0


class FleetReplay(Message, kw_only=True, frozen=True):
    """Who gains and who loses, the greatest change first. At most 1,000 agents are listed; all are counted.

    The fleet's own percents are the paid seconds of all agents over those that could be paid for.
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
