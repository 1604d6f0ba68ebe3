"""JSON request bodies: reading them with limits, and checks that their types cannot express."""

import asyncio
from typing import Any, TypeVar

from litestar import Request
from msgspec import Struct

from bus.contract.messages import decode
from bus.contract.questions import MAX_REGISTRATION_BYTES, MAX_REGISTRATION_DEPTH
from bus.contract.subjects import check_agent_id
from bus.errors import BadMessageError
from gateway.web.problems import ProblemError, bad_body

MAX_BODY_BYTES = MAX_REGISTRATION_BYTES
READ_SECONDS = 10.0
MAX_DEPTH = MAX_REGISTRATION_DEPTH

S = TypeVar("S", bound=Struct)


async def read_json(request: Request[Any, Any, Any], body_type: type[S]) -> S:
    """The body as `body_type`. Unknown fields are ignored, as they are on the bus.

    Raises a 400 problem for a body that is not such JSON or does not arrive within READ_SECONDS.
    Litestar raises the 413 for one larger than MAX_BODY_BYTES.
    """
    header = request.headers.get("content-type", "application/json")
    content_type = header.partition(";")[0].strip().lower()
    if content_type != "application/json" and not content_type.endswith("+json"):
        raise bad_body(f"the body is {content_type[:80]}; send application/json")
    try:
        async with asyncio.timeout(READ_SECONDS):
            data = await request.body()
    except TimeoutError:
        raise ProblemError(400, f"the body did not arrive within {READ_SECONDS:g} s") from None
    if not data.strip():
        raise bad_body("the body is empty; a JSON object is expected")
    try:
        return decode(data, body_type)
    except BadMessageError as error:
        detail = str(error).removeprefix(f"{body_type.__name__}: ")
        raise bad_body(detail) from None


def check_body_agent_id(agent_id: str) -> str:
    """The agent id of a body, unchanged. Raises a 400 problem that points at `#/agent_id`."""
    try:
        return check_agent_id(agent_id)
    except BadMessageError as error:
        raise bad_body(str(error), "#/agent_id") from None


def check_depth(value: Any, limit: int = MAX_DEPTH) -> None:
    """Raises a 400 problem for JSON that nests deeper than `limit` levels below `value`.

    The services that read it later decode recursively.
    """
    if limit < 0:
        raise bad_body(f"the body nests deeper than {MAX_DEPTH} levels")
    if isinstance(value, dict):
        children = list(value.values())
    elif isinstance(value, list):
        children = value
    else:
        return
    for child in children:
        check_depth(child, limit - 1)
