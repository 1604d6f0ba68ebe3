"""Query parameters that several routes share: their types, limits and descriptions."""

from typing import Annotated

from litestar.params import QueryParameter

from bus.contract.statements import MONTH_PATTERN, READY_MADE
from gateway.web.accept import Format

Hours = Annotated[float, QueryParameter(gt=0.0, le=87_600.0, description="how far back, in hours")]
Limit = Annotated[int, QueryParameter(ge=1, le=1000, description="the most entries on a page")]
FileFormat = Annotated[
    Format | None,
    QueryParameter(name="format", description="wins over Accept; json without both"),
]
Month = Annotated[
    str | None,
    QueryParameter(pattern=MONTH_PATTERN, description="`2026-11`; absent: this month, UTC"),
]
OptionalMonth = Annotated[
    str | None,
    QueryParameter(pattern=MONTH_PATTERN, description="`2026-11`, UTC"),
]
_POLICIES = ", ".join(READY_MADE)
Policy = Annotated[
    str | None,
    QueryParameter(
        max_length=16_000,
        description=f"a ready-made policy's name ({_POLICIES}), or a policy file's text (TOML)",
    ),
]
Threshold = Annotated[
    float | None,
    QueryParameter(
        ge=0.0,
        le=100.0,
        description="an uptime threshold, in percent, instead of ours",
    ),
]
