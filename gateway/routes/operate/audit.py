"""The audit log, for admins."""

from typing import Annotated

from litestar import get
from litestar.di import NamedDependency
from litestar.params import QueryParameter

from bus.contract.audit import AuditPage
from gateway.audit_log import AuditLog
from gateway.web import params
from gateway.web.access.auth import AUDIT_PATH
from gateway.web.problems import error_responses


@get(
    AUDIT_PATH,
    tags=["operation"],
    summary="Who changed what",
    responses=error_responses(401, 403),
)
async def audit(
    audit_log: NamedDependency[AuditLog],
    limit: params.LimitParam = 100,
    cursor: Annotated[
        int | None,
        QueryParameter(
            ge=1,
            le=2**63 - 1,
            description="`next_cursor` of the page before",
        ),
    ] = None,
) -> AuditPage:
    """Registrations, removals, pings by hand and changes, the newest first.

    `actor` is the token or the agent, `address` the peer that asked; `before` and `after` hold the
    fields that differ. Needs the role admin.
    """
    return await audit_log.page(limit, cursor)
