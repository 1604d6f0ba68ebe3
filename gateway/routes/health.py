"""Liveness and readiness, for probes. They need no token, and tell only which parts answer."""

import asyncio
from typing import Literal

from litestar import get
from litestar.di import NamedDependency
from msgspec import Struct

from bus.client.fleet_client import OPTIONAL_SECONDS, FleetClient, optional
from gateway.web.problems import ProblemError, error_responses


class Alive(Struct, frozen=True):
    """This process answers."""

    status: Literal["ok"] = "ok"


class Ready(Struct, kw_only=True, frozen=True):
    """Everything behind the gateway answers."""

    status: Literal["ready"] = "ready"
    checks: dict[str, bool]


@get("/healthz", tags=["operation"], summary="Liveness")
async def healthz() -> Alive:
    """200 while the gateway's process answers, whatever the state of the services behind it.

    A probe that restarts the gateway would not repair those.
    """
    return Alive()


@get("/readyz", tags=["operation"], summary="Readiness", responses=error_responses())
async def readyz(fleet_client: NamedDependency[FleetClient]) -> Ready:
    """200 when bus, scheduler and storage answer; else a 503 problem, which names the `missing`."""
    checks = await check(fleet_client)
    missing = [name for name, answered in checks.items() if not answered]
    if missing:
        detail = f"not answering: {', '.join(missing)}"
        raise ProblemError(503, detail, missing=missing, checks=checks)
    return Ready(checks=checks)


async def check(fleet_client: FleetClient) -> dict[str, bool]:
    """Whether each part behind the gateway answers now, by its name."""
    if not fleet_client.is_connected:
        return {"bus": False, "scheduler": False, "storage": False}
    fleet, storage_stats = await asyncio.gather(
        optional(fleet_client.fleet(OPTIONAL_SECONDS)),
        optional(fleet_client.storage_stats(OPTIONAL_SECONDS)),
    )
    return {
        "bus": True,
        "scheduler": fleet is not None,
        "storage": storage_stats is not None,
    }
