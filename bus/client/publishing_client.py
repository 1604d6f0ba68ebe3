"""Questions about status pages and links for people who do not sign in, as one typed call each.

The calls raise a BusError as those of `bus/client/fleet_client.py` do.
"""

from typing import TypeVar

from msgspec import Struct

from bus.contract import subjects
from bus.contract.publishing import (
    AddStatusPage,
    Conditions,
    HostDaysReply,
    HostDaysRequest,
    Link,
    LinkKey,
    LinkKeyRequest,
    MakeLink,
    RemoveStatusPage,
    RevokedLinks,
    RevokeLinks,
    StatusPage,
    StatusPages,
)
from bus.errors import BadAnswerError, BadMessageError
from bus.transport import hedging
from bus.transport.connection import Client
from bus.transport.large_answers import ask_whole
from bus.transport.micro_services import ask

SCHEDULER = "the scheduler"
STORAGE = "storage"
ANSWER_SECONDS = 5.0
# Storage reads ninety days of two hundred hosts for it.
DAYS_SECONDS = 15.0

ReplyT = TypeVar("ReplyT")


class PublishingClient:
    """Asks over `client`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def pages(self) -> StatusPages:
        """The definitions of all status pages."""
        return await self._look(subjects.LIST_STATUS_PAGES, StatusPages)

    async def add_page(self, request: AddStatusPage) -> StatusPage:
        """Adds or replaces a page. RefusedError 404 for an unknown agent, 409 for a taken name."""
        return await self._ask(subjects.ADD_STATUS_PAGE, request, StatusPage)

    async def remove_page(self, request: RemoveStatusPage) -> StatusPage:
        """Takes a page away and returns it as it was. RefusedError 404 where there is none."""
        return await self._ask(subjects.REMOVE_STATUS_PAGE, request, StatusPage)

    async def make_link(self, request: MakeLink) -> Link:
        """Makes a link. RefusedError 404 for an agent that never was."""
        return await self._ask(subjects.MAKE_LINK, request, Link)

    async def revoke_links(self, request: RevokeLinks) -> RevokedLinks:
        """Refuses the links that were made so far, of one agent or of all."""
        return await self._ask(subjects.REVOKE_LINKS, request, RevokedLinks)

    async def link_key(self, agent_id: str | None = None) -> LinkKey:
        """The key of links, and since when links of the agent are good."""
        return await self._ask(subjects.LINK_KEY, LinkKeyRequest(agent_id=agent_id), LinkKey)

    async def conditions(self) -> Conditions:
        """The policy that every host is judged by."""
        return await self._look(subjects.CONDITIONS, Conditions)

    async def host_days(self, request: HostDaysRequest) -> HostDaysReply:
        """The days and incidents of a few hosts."""
        try:
            return await ask_whole(
                self._client,
                subjects.HOST_DAYS,
                request,
                HostDaysReply,
                who=STORAGE,
                timeout=DAYS_SECONDS,
                requesting=hedging.request_long,
            )
        except BadMessageError as error:
            raise BadAnswerError(f"the answer of {STORAGE} cannot be read: {error}") from None

    async def _look(self, subject: str, reply: type[ReplyT]) -> ReplyT:
        """Asks what changes nothing, so that the question may be sent a second time."""
        try:
            return await ask(
                self._client,
                subject,
                None,
                reply,
                who=SCHEDULER,
                timeout=ANSWER_SECONDS,
                requesting=hedging.request,
            )
        except BadMessageError as error:
            raise BadAnswerError(f"the answer of {SCHEDULER} cannot be read: {error}") from None

    async def _ask(self, subject: str, request: Struct, reply: type[ReplyT]) -> ReplyT:
        try:
            return await ask(
                self._client, subject, request, reply, who=SCHEDULER, timeout=ANSWER_SECONDS
            )
        except BadMessageError as error:
            raise BadAnswerError(f"the answer of {SCHEDULER} cannot be read: {error}") from None
