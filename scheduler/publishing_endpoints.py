"""Answers what is kept about pages and links for people who do not sign in.

Status pages, the key of links and revocations are values of the bucket, which only schedulers
write. Several schedulers may write at once: each write is a compare-and-set.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from msgspec import Struct
from msgspec.structs import replace
from nats.micro.request import Request

from bus.client import audit
from bus.client.audit import UNNAMED_ACTOR
from bus.contract import subjects
from bus.contract.messages import decode, encode
from bus.contract.publishing import (
    MAX_PAGES,
    AddStatusPage,
    Conditions,
    Link,
    LinkKey,
    LinkKeyRequest,
    MakeLink,
    RemoveStatusPage,
    RevokedLinks,
    RevokeLinks,
    StatusPage,
    StatusPages,
    link_path,
)
from bus.errors import RefusedError, StaleError, UnavailableError
from bus.identity import sealed_links
from bus.identity.sealed_links import LinkContent
from bus.transport import bucket
from bus.transport.batch import Write
from bus.transport.bus_clock import BusClock
from bus.transport.connection import Client
from bus.transport.micro_services import Endpoint
from scheduler.fleet.directory import Directory
from scheduler.fleet.fleet_watcher import FleetWatcher
from scheduler.fleet.registry import unknown
from scheduler.write.batcher import WriteBatcher

ATTEMPTS = 5


class PublishingEndpoints:
    """One handler for each subject."""

    def __init__(
        self,
        client: Client,
        directory: Directory,
        watcher: FleetWatcher,
        batcher: WriteBatcher,
        bus_clock: BusClock,
    ) -> None:
        self._client = client
        self._directory = directory
        self._watcher = watcher
        self._batcher = batcher
        self._bus_clock = bus_clock

    def changes(self) -> list[Endpoint]:
        """Returns what the scheduler's micro service answers besides its own subjects."""
        return [
            Endpoint("add-status-page", subjects.ADD_STATUS_PAGE, self.add_page),
            Endpoint("remove-status-page", subjects.REMOVE_STATUS_PAGE, self.remove_page),
            Endpoint("make-link", subjects.MAKE_LINK, self.make_link),
            Endpoint("revoke-links", subjects.REVOKE_LINKS, self.revoke_links),
            # it makes the key where there is none
            Endpoint("link-key", subjects.LINK_KEY, self.link_key),
        ]

    def looks(self) -> list[Endpoint]:
        """Returns those that change nothing."""
        return [
            Endpoint("list-status-pages", subjects.LIST_STATUS_PAGES, self.list_pages),
            Endpoint("conditions", subjects.CONDITIONS, self.conditions),
        ]

    async def list_pages(self, _request: Request) -> StatusPages:
        """Answers with the definitions of all pages."""
        found = await bucket.read(self._client, subjects.status_pages_key(), StatusPages)
        if found is None:
            return StatusPages(pages=())
        return found.value

    async def add_page(self, request: Request) -> StatusPage:
        """Adds a page. Refused with 409 for a name that is taken, unless it is to be replaced."""
        body = decode(request.data, AddStatusPage)
        await self._watcher.catch_up()
        for agent_id in body.page.agents:
            self._check_registered(agent_id)
        now = self._bus_clock.now()
        page = replace(body.page, author=body.author, changed_at=now)
        earlier: list[StatusPage] = []

        def change(before: StatusPages) -> StatusPages:
            earlier[:] = [one for one in before.pages if one.name == page.name]
            if earlier and not body.replace:
                raise RefusedError(409, f"there is a status page {page.name!r} already")
            others = [one for one in before.pages if one.name != page.name]
            if len(others) >= MAX_PAGES:
                raise RefusedError(409, f"a fleet has at most {MAX_PAGES} status pages")
            pages = sorted([*others, page], key=lambda one: one.name)
            return StatusPages(pages=tuple(pages))

        await self._change(subjects.status_pages_key(), StatusPages(pages=()), change)
        before = earlier[0] if earlier else None
        await self._record("add-status-page", body, before=before, after=page)
        return page

    async def remove_page(self, request: Request) -> StatusPage:
        """Takes a page away and returns it as it was. Refused with 404 where there is none."""
        body = decode(request.data, RemoveStatusPage)
        removed: list[StatusPage] = []

        def change(before: StatusPages) -> StatusPages:
            removed[:] = [one for one in before.pages if one.name == body.name]
            if not removed:
                raise RefusedError(404, f"there is no status page {body.name!r}")
            return StatusPages(pages=tuple(one for one in before.pages if one.name != body.name))

        await self._change(subjects.status_pages_key(), StatusPages(pages=()), change)
        await self._record("remove-status-page", body, before=removed[0])
        return removed[0]

    async def make_link(self, request: Request) -> Link:
        """Makes a link to an agent's badge or to its host's own view."""
        body = decode(request.data, MakeLink)
        await self._watcher.catch_up()
        self._check_known(body.agent_id)
        now = self._bus_clock.now()
        expires_at = None
        if body.valid_seconds is not None:
            expires_at = now + timedelta(seconds=body.valid_seconds)
        content = LinkContent(
            kind=body.kind,
            agent_id=body.agent_id,
            made_at=_milliseconds(now),
            expires_at=_milliseconds(expires_at) if expires_at is not None else 0,
            shown_name=body.shown_name,
        )
        secret = sealed_links.seal((await self._key()).key, content)
        # the secret itself stays out of the audit log, whose readers could use it
        after = {"kind": body.kind, "expires_at": expires_at, "shown_name": body.shown_name}
        await self._record("make-link", body, agent_id=body.agent_id, after=after)
        return Link(
            kind=body.kind,
            agent_id=body.agent_id,
            path=link_path(body.kind, secret),
            expires_at=expires_at,
        )

    async def revoke_links(self, request: Request) -> RevokedLinks:
        """Refuses the links that were made so far: of one agent, or by a new key those of all."""
        body = decode(request.data, RevokeLinks)
        revoked = RevokedLinks(agent_id=body.agent_id, made_before=self._bus_clock.now())
        if body.agent_id is None:
            key = sealed_links.new_key()
            await self._change(subjects.link_key(), LinkKey(key=key), lambda _: LinkKey(key=key))
        else:
            await self._watcher.catch_up()
            self._check_known(body.agent_id)
            subject = subjects.revoked_links_key(body.agent_id)
            await self._change(subject, revoked, lambda _: revoked)
        await self._record(
            "revoke-links",
            body,
            agent_id=body.agent_id,
            after={"made_before": revoked.made_before},
        )
        return revoked

    async def link_key(self, request: Request) -> LinkKey:
        """Answers gateways with the key, and since when links of an agent are good."""
        body = decode(request.data or b"{}", LinkKeyRequest)
        key = await self._key()
        if body.agent_id is None:
            return key
        subject = subjects.revoked_links_key(body.agent_id)
        revoked = await bucket.read(self._client, subject, RevokedLinks)
        if revoked is None:
            return key
        return replace(key, revoked_before=revoked.value.made_before)

    async def conditions(self, _request: Request) -> Conditions:
        """Answers with the policy that every host is judged by."""
        policy = self._directory.policy
        return Conditions(
            threshold_percent=policy.threshold_percent,
            base_interval_minutes=policy.base_seconds / 60,
            multiplier=policy.multiplier,
            max_interval_minutes=policy.max_seconds / 60,
            recovery_pings=policy.recovery_pings,
        )

    async def _key(self) -> LinkKey:
        """Returns the key of links, made where there is none."""
        found = await bucket.read(self._client, subjects.link_key(), LinkKey)
        if found is not None:
            return found.value
        new = LinkKey(key=sealed_links.new_key())
        try:
            write = Write(subjects.link_key(), encode(new), expected=0)
            await self._batcher.write([write])
        except StaleError:
            pass  # another scheduler has just made it
        else:
            return new
        found = await bucket.read(self._client, subjects.link_key(), LinkKey)
        if found is None:
            raise UnavailableError("the key of links cannot be read")
        return found.value

    async def _change(
        self,
        subject: str,
        first: Any,
        change: Callable[[Any], Struct],
    ) -> None:
        """Replaces a value of the bucket by what `change` makes of it, or of `first` without one.

        `change` may be called again, with a value that another scheduler wrote meanwhile.
        """
        for _ in range(ATTEMPTS):
            found = await bucket.read(self._client, subject, type(first))
            before, revision = first, 0
            if found is not None:
                before, revision = found.value, found.revision
            write = Write(subject, encode(change(before)), expected=revision)
            try:
                await self._batcher.write([write])
            except StaleError:
                continue
            return
        raise UnavailableError("others are changing this at the same time: try again")

    def _check_registered(self, agent_id: str) -> None:
        tracked = self._directory.get(agent_id)
        if tracked is None or not tracked.registered:
            raise unknown(agent_id)

    def _check_known(self, agent_id: str) -> None:
        """Raises RefusedError 404 for an agent that never was; one that was removed has a past."""
        tracked = self._directory.get(agent_id)
        if tracked is None or tracked.entry is None:
            raise unknown(agent_id)

    async def _record(
        self,
        action: str,
        body: AddStatusPage | RemoveStatusPage | MakeLink | RevokeLinks,
        *,
        agent_id: str | None = None,
        before: Any = None,
        after: Any = None,
    ) -> None:
        await audit.record(
            self._client,
            action,
            body.author or UNNAMED_ACTOR,
            address=body.address,
            agent_id=agent_id,
            before=before,
            after=after,
        )


def _milliseconds(at: datetime) -> int:
    return int(at.timestamp() * 1000)
