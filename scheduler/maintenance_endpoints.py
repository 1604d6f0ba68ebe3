"""Answers the operator's questions about maintenance: book, cancel and list."""

import secrets
from collections.abc import Iterator
from datetime import timedelta

from nats.micro.request import Request

from bus.client import audit
from bus.client.audit import UNNAMED_ACTOR
from bus.contract import subjects
from bus.contract.maintenance import (
    Booking,
    Bookings,
    BookingsRequest,
    BookRequest,
    CancelRequest,
)
from bus.contract.messages import AgentEntry, MaintenanceWindow, decode
from bus.errors import RefusedError
from bus.settings import Settings
from bus.transport.bus_clock import BusClock
from bus.transport.connection import Client
from bus.transport.micro_services import Endpoint
from scheduler.fleet.directory import Directory
from scheduler.fleet.fleet_watcher import FleetWatcher
from scheduler.fleet.registry import Registry, unknown
from scheduler.fleet.rules import maintenance
from scheduler.fleet.rules.maintenance import Limits

ID_BYTES = 6


def limits_of(settings: Settings) -> Limits:
    """Returns what the settings say about bookings."""
    monthly = None
    if settings.GPUPING_MAINTENANCE_BUDGET_HOURS is not None:
        monthly = timedelta(hours=settings.GPUPING_MAINTENANCE_BUDGET_HOURS)
    notice = timedelta(minutes=settings.GPUPING_MAINTENANCE_NOTICE_MINUTES)
    return Limits(notice=notice, monthly=monthly)


class MaintenanceEndpoints:
    """One handler for each subject. All times are the schedulers', never those of a host."""

    def __init__(
        self,
        client: Client,
        directory: Directory,
        registry: Registry,
        watcher: FleetWatcher,
        bus_clock: BusClock,
        limits: Limits,
    ) -> None:
        self._client = client
        self._directory = directory
        self._registry = registry
        self._watcher = watcher
        self._bus_clock = bus_clock
        self._limits = limits

    def changes(self) -> list[Endpoint]:
        """Returns what the scheduler's micro service answers besides its own subjects."""
        return [
            Endpoint("book-maintenance", subjects.BOOK_MAINTENANCE, self.book),
            Endpoint("cancel-maintenance", subjects.CANCEL_MAINTENANCE, self.cancel),
        ]

    def looks(self) -> list[Endpoint]:
        """Returns those that change nothing."""
        return [Endpoint("list-maintenance", subjects.LIST_MAINTENANCE, self.list_bookings)]

    async def book(self, request: Request) -> Bookings:
        """Books for one agent, or for all that have a label.

        All are checked before any is booked.
        """
        body = decode(request.data, BookRequest)
        await self._watcher.catch_up()
        now = self._bus_clock.now()
        maintenance.check_times(body.since, body.until, now, self._limits)
        entries = self._entries_of(body)
        window = MaintenanceWindow(
            since=body.since,
            until=body.until,
            booking_id=secrets.token_hex(ID_BYTES),
            reason=body.reason,
            author=body.author,
            booked_at=now,
        )

        def with_booking(entry: AgentEntry) -> AgentEntry:
            tracked = self._directory.get(entry.agent_id)
            open_since = None if tracked is None else tracked.window_since
            return maintenance.booked(entry, window, now, self._limits, open_since)

        for entry in entries:
            with_booking(entry)
        booked = []
        for entry in entries:
            _, after = await self._registry.change(entry.agent_id, with_booking)
            booked.append(after)
        found = maintenance.bookings(booked, now, past_too=False)
        mine = tuple(one for one in found if one.booking_id == window.booking_id)
        await self._record("book", body.author, body.address, after=mine)
        return Bookings(bookings=mine)

    async def cancel(self, request: Request) -> Bookings:
        """Ends a booking now and returns it as it was. Refused with 404 where there is none."""
        body = decode(request.data, CancelRequest)
        await self._watcher.catch_up()
        now = self._bus_clock.now()
        concerned = []
        for entry in self._registered():
            if any(window.booking_id == body.booking_id for window in entry.maintenance):
                concerned.append(entry)
        found = maintenance.bookings(concerned, now, past_too=False)
        ended = tuple(one for one in found if one.booking_id == body.booking_id)
        if not ended:
            raise RefusedError(404, f"no booking {body.booking_id!r} is still to come or going on")
        for entry in concerned:
            await self._registry.change(
                entry.agent_id,
                lambda before: maintenance.cancelled(before, body.booking_id, now),
            )
        await self._record("cancel", body.author, body.address, before=ended)
        return Bookings(bookings=ended)

    async def list_bookings(self, request: Request) -> Bookings:
        """Returns the bookings of one agent, or of all registered ones."""
        body = decode(request.data or b"{}", BookingsRequest)
        await self._watcher.catch_up()
        entries: list[AgentEntry] = []
        for entry in self._registered():
            if body.agent_id in {None, entry.agent_id}:
                entries.append(entry)
        if body.agent_id is not None and not entries:
            raise unknown(body.agent_id)
        found = maintenance.bookings(entries, self._bus_clock.now(), past_too=body.past_too)
        return Bookings(bookings=tuple(found))

    async def _record(
        self,
        action: str,
        author: str,
        address: str | None,
        *,
        before: tuple[Booking, ...] = (),
        after: tuple[Booking, ...] = (),
    ) -> None:
        """Writes one entry of the audit log for each agent of the bookings."""
        for booking in (*before, *after):
            for agent_id in booking.agent_ids:
                await audit.record(
                    self._client,
                    action,
                    author or UNNAMED_ACTOR,
                    address=address,
                    agent_id=agent_id,
                    before=booking if before else None,
                    after=booking if after else None,
                )

    def _entries_of(self, body: BookRequest) -> list[AgentEntry]:
        entries: list[AgentEntry] = []
        for entry in self._registered():
            if body.agent_id is not None:
                is_meant = entry.agent_id == body.agent_id
            else:
                is_meant = maintenance.has_label(entry, body.label or "")
            if is_meant:
                entries.append(entry)
        if body.agent_id is not None and not entries:
            raise unknown(body.agent_id)
        if not entries:
            raise RefusedError(404, f"no registered agent has the label {body.label!r}")
        return entries

    def _registered(self) -> Iterator[AgentEntry]:
        for agent_id in self._directory.registered_ids():
            tracked = self._directory.get(agent_id)
            if tracked is not None and tracked.entry is not None:
                yield tracked.entry
