"""Query parameters that several routes share: their types, limits and descriptions."""

from datetime import datetime
from typing import Annotated

from litestar.params import PathParameter, QueryParameter

from bus.clock import utc_now
from bus.contract.labels import LABEL_PATTERN
from bus.contract.questions import AgentOrder
from bus.contract.statements import MONTH_PATTERN, READY_MADE
from bus.contract.subjects import AGENT_ID_PATTERN
from gateway.web.accept import Format

MOST_SKIPPED = 100_000_000  # more than any fleet has

# The pattern is documented here and checked by `check_agent_id`, whose error is a sentence for
# people. The outer middleware calls it for ids in paths, the routes call it for all others.
_AGENT_ID_SCHEMA = {"pattern": AGENT_ID_PATTERN}
AgentIdPathParam = Annotated[str, PathParameter(schema_extra=_AGENT_ID_SCHEMA)]
TimeParam = Annotated[
    datetime | None,
    QueryParameter(
        schema_extra={"one_of": None, "type": ["string", "number"], "format": "date-time"},
        description="RFC 3339 with a time zone, or seconds since 1970",
    ),
]
HoursParam = Annotated[
    float,
    QueryParameter(
        gt=0.0,
        le=87_600.0,
        description="how far back, in hours",
    ),
]
AgentCursorParam = Annotated[
    str | None,
    QueryParameter(schema_extra=_AGENT_ID_SCHEMA, description="`next_cursor` of the page before"),
]
LimitParam = Annotated[
    int,
    QueryParameter(
        ge=1,
        le=1000,
        description="the most entries on a page",
    ),
]
OffsetParam = Annotated[
    int,
    QueryParameter(
        ge=0,
        le=MOST_SKIPPED,
        description="how many entries are skipped, so that any page is reached at once",
    ),
]
SearchParam = Annotated[
    str | None,
    QueryParameter(
        max_length=200,
        description="each word occurs, in any case, in the id, URL, capabilities, metadata"
        " (as `name:value`), a GPU's name or UUID, or a reason (as `reason:...`)",
    ),
]
OrderParam = Annotated[
    AgentOrder, QueryParameter(description="`uptime` is that of the last judged ping")
]
LabelParam = Annotated[
    str | None,
    QueryParameter(pattern=LABEL_PATTERN, description="all that have this, such as `site=FRA`"),
]
FormatParam = Annotated[
    Format | None,
    QueryParameter(name="format", description="wins over Accept; json without both"),
]
MonthParam = Annotated[
    str | None,
    QueryParameter(pattern=MONTH_PATTERN, description="`2026-11`; absent: this month, UTC"),
]
OptionalMonthParam = Annotated[
    str | None,
    QueryParameter(pattern=MONTH_PATTERN, description="`2026-11`, UTC"),
]
_POLICIES = ", ".join(READY_MADE)
PolicyParam = Annotated[
    str | None,
    QueryParameter(
        max_length=16_000,
        description=f"a ready-made policy's name ({_POLICIES}), or a policy file's text (TOML)",
    ),
]
AgentIdParam = Annotated[
    str | None,
    QueryParameter(
        schema_extra=_AGENT_ID_SCHEMA,
        description="only this agent; not of the fleet's sums",
    ),
]
ThresholdParam = Annotated[
    float | None,
    QueryParameter(
        ge=0.0,
        le=100.0,
        description="an uptime threshold, in percent, instead of ours",
    ),
]


def this_month() -> str:
    """The month of now in UTC, such as `2026-11`: what a question without a month is about."""
    return f"{utc_now():%Y-%m}"
