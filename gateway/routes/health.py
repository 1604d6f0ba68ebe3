"""Liveness and readiness, for probes. They need no token, and tell only which parts can work."""

from typing import Literal

from litestar import get
from litestar.di import NamedDependency
from msgspec import Struct

from bus.client.fleet_client import FleetClient
from gateway.web.problems import ProblemError, error_responses


class Alive(Struct, frozen=True):
    """This process answers."""

    status: Literal["ok"] = "ok"


class Ready(Struct, kw_only=True, frozen=True):
    """Everything behind the gateway can work."""

    status: Literal["ready"] = "ready"
    checks: dict[str, bool]
    remarks: tuple[str, ...] = ()  # what an operator should put right


@get("/healthz", tags=["operation"], summary="Liveness")
async def healthz() -> Alive:
    """200 while the gateway's process answers, whatever the state of the services behind it.

    A probe that restarts the gateway would not repair those.
    """
    return Alive()


@get(
    "/readyz",
    tags=["operation"],
    summary="Readiness",
    responses=error_responses(),
)
async def readyz(fleet_client: NamedDependency[FleetClient]) -> Ready:
    """200 when bus, scheduler and storage can do their work.

    Otherwise a 503 problem, which names the `missing` parts and the `reasons`. A part that answers
    is still missing if it cannot work: storage without room, or whose file another process holds.
    """
    troubles = await fleet_client.troubles()
    checks: dict[str, bool] = {}
    reasons: dict[str, str] = {}
    sentences: list[str] = []
    for name, trouble in troubles.items():
        checks[name] = trouble is None
        if trouble is not None:
            reasons[name] = trouble
            sentences.append(f"{name}: {trouble}")
    if reasons:
        raise ProblemError(
            503,
            f"cannot work: {'; '.join(sentences)}",
            missing=list(reasons),
            checks=checks,
            reasons=reasons,
            headers={"Retry-After": "2"},
        )
    return Ready(checks=checks, remarks=await fleet_client.remarks())
