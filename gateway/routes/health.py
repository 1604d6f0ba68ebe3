"""Liveness and readiness, for probes. Neither needs a token; neither tells more than the names of our parts."""

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
    """Says only that the gateway's process is alive: a restart would not mend what is behind it."""
    return Alive()


@get("/readyz", tags=["operation"], summary="Readiness", responses=error_responses())
async def readyz(fleet_client: NamedDependency[FleetClient]) -> Ready:
    """200 when bus, scheduler and storage answer; else a 503 problem that names the `missing` ones."""
    checks = await check(fleet_client)
    missing = [name for name, present in checks.items() if not present]
    if missing:
        raise ProblemError(
            503, f"not answering: {', '.join(missing)}", missing=missing, checks=checks
        )
    return Ready(checks=checks)


async def check(fleet_client: FleetClient) -> dict[str, bool]:
    """Which of the parts behind the gateway answer now."""
    if not fleet_client.is_connected:
        return {"bus": False, "scheduler": False, "storage": False}
    fleet, storage = await asyncio.gather(
        optional(fleet_client.fleet(OPTIONAL_SECONDS)),
        optional(fleet_client.storage_stats(OPTIONAL_SECONDS)),
    )
    return {"bus": True, "scheduler": fleet is not None, "storage": storage is not None}
