"""Records what callers of the REST interface change, in the name of their token."""

from collections.abc import Mapping
from typing import Any

from litestar import Request

from bus.client import audit
from bus.contract.audit import AuditPage
from bus.identity.tokens import Token
from bus.transport.connection import Client
from gateway.web.access.auth import CALLER_SCOPE_KEY


class AuditLog:
    """Writes and reads the audit log over the bus."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def record(
        self,
        request: Request[Any, Any, Any],
        action: str,
        agent_id: str | None = None,
        *,
        before: Any = None,
        after: Any = None,
    ) -> None:
        """Appends an entry about a change that `request` asked for and that was carried out."""
        await audit.record(
            self._client,
            action,
            actor_of(request.scope),
            address=address_of(request),
            agent_id=agent_id,
            before=before,
            after=after,
        )

    async def page(self, limit: int, before: int | None) -> AuditPage:
        """A page of entries, the newest first. Raises BusError."""
        return await audit.read_page(self._client, limit, before)


def address_of(request: Request[Any, Any, Any]) -> str | None:
    """The IP address of the peer that asks."""
    if request.client is None:
        return None
    return request.client.host


def actor_of(scope: Mapping[str, Any]) -> str:
    """Who asks, by the token that the outer middleware has found."""
    token: Token | None = scope[CALLER_SCOPE_KEY]
    if token is None:
        return "anonymous"
    return f"token {token.name}"
