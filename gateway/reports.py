"""The uptime statement of an agent's month: what somebody is paid on."""

from typing import Annotated

from litestar import Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, QueryParameter

from bus.clock import utc_now
from bus.messages import Percent
from bus.statements import Statement, StatementFormat, StatementRequest
from bus.subjects import check_agent_id
from gateway import exports
from gateway.agents import AGENTS
from gateway.backends import Backends, registered
from gateway.problems import described

LONGEST_POLICY = 16_000
_MONTH = r"^\d{4}-(0[1-9]|1[0-2])$"

Month = Annotated[str | None, QueryParameter(pattern=_MONTH, description="`2026-11`; absent: this month, UTC")]
Form = Annotated[StatementFormat, QueryParameter(name="format", description="html is made to print")]
Policy = Annotated[
    str | None, QueryParameter(max_length=LONGEST_POLICY, description="a ready-made policy's name, or one as TOML")
]


@get(
    f"{AGENTS}/{{agent_id:str}}/report",
    tags=["pings"],
    summary="An agent's uptime statement of a month",
    responses=described(401, 403, 404),
)
async def report(
    agent_id: FromPath[str],
    backends: NamedDependency[Backends],
    month: Month = None,
    file_format: Form = "json",
    threshold: FromQuery[Percent | None] = None,
    policy: Policy = None,
) -> Response[Statement]:
    """Seconds by GPU and host, incidents, uptime over enrolled time; with `threshold` or `policy` a replay."""
    agent = await registered(backends, check_agent_id(agent_id))
    question = StatementRequest(
        month=month or f"{utc_now():%Y-%m}",
        format=file_format,
        enrolled_since=(agent.enrolled_at or agent.registered_at) if agent else None,
        threshold=threshold,
        policy=policy,
    )
    if file_format == "json":
        return Response(await backends.statement(agent_id, question))
    return await exports.passed_on(backends, await backends.statement_file(agent_id, question))  # type: ignore[return-value]
