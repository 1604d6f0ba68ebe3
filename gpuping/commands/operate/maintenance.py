"""`gpuping maintenance`: books time in which hosts are pinged and not judged."""

from datetime import UTC, datetime
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console

from bus import clock
from bus.contract.maintenance import Bookings, BookingsRequest, BookRequest, CancelRequest
from bus.errors import SettingsError
from gpuping.commands.operate.author import author
from gpuping.commands.options import (
    CHECK,
    DataDir,
    Json,
    OneAgent,
    ServerUrl,
    app,
    examples,
)
from gpuping.commands.query import run_answer
from gpuping.output import tables
from gpuping.output.formats import counted

maintenance_app = App(
    name="maintenance",
    group=CHECK,
    help_format="markdown",
    help="""\
Book time in which hosts are pinged and not judged.

It is booked ahead of its begin, never backwards. Its time is excused: it counts neither for nor
against a host. GPUPING_MAINTENANCE_BUDGET_HOURS limits what a host may have in a month.
""",
    help_epilogue=examples(
        "gpuping maintenance book agent-001 --from 2026-12-01T02:00 --to 2026-12-01T04:00 "
        '--reason "new fans"',
        "gpuping maintenance book --label site=FRA --from 2026-12-01T02:00 --to 2026-12-01T04:00 "
        '--reason "power works"',
        "gpuping maintenance list",
        "gpuping maintenance cancel 5f3a9c01d2e4",
    ),
)
app.command(maintenance_app)

Begin = Annotated[datetime, Parameter(name="--from", help="when it begins, UTC unless it says")]
End = Annotated[datetime, Parameter(name="--to", help="when it ends")]
Reason = Annotated[str, Parameter(help="what is done, for those who read the statement")]
ForLabel = Annotated[str | None, Parameter(help="all agents with this metadata, such as site=FRA")]
PastToo = Annotated[
    bool,
    Parameter(
        name="--past",
        negative="",
        help="those that are over, too",
    ),
]
BookingIdArgument = Annotated[str, Parameter(name="BOOKING", help="as `list` shows it")]


@maintenance_app.command
def book(
    agent_id: OneAgent = None,
    /,
    *,
    begin: Begin,
    end: End,
    reason: Reason,
    label: ForLabel = None,
    server_url: ServerUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> int:
    """Book maintenance for one agent, or with --label for all that have it."""
    if (agent_id is None) == (label is None):
        raise SettingsError("maintenance book: expected an agent's id, or --label")
    request = BookRequest(
        agent_id=agent_id,
        label=label,
        since=_in_utc(begin),
        until=_in_utc(end),
        reason=reason,
        author=author(),
    )

    def show(console: Console, booked: Bookings) -> None:
        console.print(tables.bookings_table(booked.bookings, clock.utc_now()))

    return run_answer(
        lambda source: source.book_maintenance(request), show, data_dir, server_url, as_json=as_json
    )


@maintenance_app.command(name="list")
def list_bookings(
    agent_id: OneAgent = None,
    /,
    *,
    past: PastToo = False,
    server_url: ServerUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> int:
    """List what is booked and not over yet, the earliest first."""
    request = BookingsRequest(agent_id=agent_id, past_too=past)

    def show(console: Console, found: Bookings) -> None:
        if found.bookings:
            console.print(tables.bookings_table(found.bookings, clock.utc_now()))
        else:
            console.print("no maintenance is booked")

    return run_answer(
        lambda source: source.maintenance(request), show, data_dir, server_url, as_json=as_json
    )


@maintenance_app.command
def cancel(
    booking: BookingIdArgument,
    /,
    *,
    server_url: ServerUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> int:
    """End a booking now, for all its agents. What has passed of it stays excused."""
    request = CancelRequest(booking_id=booking, author=author())

    def show(console: Console, ended: Bookings) -> None:
        agents = sum(len(one.agent_ids) for one in ended.bookings)
        console.print(f"cancelled {booking}, booked for {counted(agents, 'agent')}")

    return run_answer(
        lambda source: source.cancel_maintenance(request),
        show,
        data_dir,
        server_url,
        as_json=as_json,
    )


def _in_utc(at: datetime) -> datetime:
    """Returns the time in UTC, which is also meant where no zone is given."""
    if at.tzinfo is None:
        return at.replace(tzinfo=UTC)
    return at.astimezone(UTC)
