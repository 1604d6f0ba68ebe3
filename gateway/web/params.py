"""What routes have in common: checked parameters, request bodies, and the descriptions of both."""

import asyncio
from typing import Annotated, Any, Literal, TypeVar

from litestar import Request
from litestar.params import QueryParameter
from msgspec import Struct

from bus.contract.messages import decode
from bus.contract.statements import MONTH_PATTERN, READY_MADE
from bus.contract.subjects import check_agent_id
from bus.errors import BadMessageError
from gateway.web.problems import ProblemError, bad_body

BODY_BYTES = 64 * 1024
BODY_SECONDS = 10.0
DEEPEST_BODY = 32

Hours = Annotated[float, QueryParameter(gt=0.0, le=87_600.0, description="how far back, in hours")]
Limit = Annotated[int, QueryParameter(ge=1, le=1000, description="the most entries on a page")]

Format = Literal["json", "csv", "parquet"]
FileFormat = Annotated[
    Format | None, QueryParameter(name="format", description="wins over Accept; json without both")
]
Month = Annotated[
    str | None,
    QueryParameter(pattern=MONTH_PATTERN, description="`2026-11`; absent: this month, UTC"),
]
SomeMonth = Annotated[
    str | None, QueryParameter(pattern=MONTH_PATTERN, description="`2026-11`, UTC")
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
        ge=0.0, le=100.0, description="an uptime threshold, in percent, instead of ours"
    ),
]
S = TypeVar("S", bound=Struct)


async def body(request: Request[Any, Any, Any], kind: type[S]) -> S:
    """The JSON body as `kind`. Raises what becomes a 400, or a 413. Unknown fields are ignored, as on the wire."""
    content_type = (
        request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    )
    if content_type != "application/json" and not content_type.endswith("+json"):
        raise bad_body(f"the body is {content_type[:80]}; send application/json")
    try:
        async with asyncio.timeout(BODY_SECONDS):
            data = await request.body()
    except TimeoutError:
        raise ProblemError(400, f"the body did not arrive within {BODY_SECONDS:g} s") from None
    if not data.strip():
        raise bad_body("the body is empty; a JSON object is expected")
    try:
        return decode(data, kind)
    except BadMessageError as error:
        raise bad_body(str(error).removeprefix(f"{kind.__name__}: ")) from None


def body_id(agent_id: str) -> str:
    """The id of a body, as `check_agent_id` wants it; its fault is pointed at."""
    try:
        return check_agent_id(agent_id)
    except BadMessageError as error:
        raise bad_body(str(error), "#/agent_id") from None


def check_depth(value: Any, limit: int = DEEPEST_BODY) -> None:
    """Refuses what nests so deep that a reader further on may choke on it."""
    if limit < 0:
        raise bad_body(f"the body nests deeper than {DEEPEST_BODY} levels")
    children = (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    )
    for child in children:
        check_depth(child, limit - 1)


def accepted(request: Request[Any, Any, Any]) -> Format:
    """The format that a request likes best without saying `format`."""
    return preferred(request.headers.get("accept", ""))


def preferred(accept: str) -> Format:
    """Which of our formats an Accept header likes best: json unless csv or parquet stands higher."""
    liked: dict[str, Format] = {
        "text/csv": "csv",
        "application/vnd.apache.parquet": "parquet",
        "application/json": "json",
    }
    best: Format = "json"
    best_quality = 0.0
    for part in accept.split(","):
        media_type, *parameters = (piece.strip().lower() for piece in part.split(";"))
        quality = next((_quality(p[2:]) for p in parameters if p.startswith("q=")), 1.0)
        if media_type in liked and quality > best_quality:
            best, best_quality = liked[media_type], quality
    return best


def _quality(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
