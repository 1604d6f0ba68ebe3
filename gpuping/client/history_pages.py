"""Collects an agent's newest outcomes from as many pages as they take.

A page holds fewer outcomes than asked for where a message of the bus carries no more.
"""

from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from bus.contract.questions import HistoryReply, HistoryRequest

AskForPage = Callable[[HistoryRequest], Awaitable[HistoryReply]]


async def newest_outcomes(request: HistoryRequest, ask_for_page: AskForPage) -> HistoryReply:
    """The newest `request.limit` outcomes, and the summary of the whole period."""
    first = await ask_for_page(request)
    pings = list(first.pings)
    last = first
    while last.pings and last.next_cursor is not None and len(pings) < request.limit:
        wanted = request.limit - len(pings)
        next_request = replace(request, limit=wanted, cursor=last.next_cursor)
        last = await ask_for_page(next_request)
        pings += last.pings
    return replace(first, pings=tuple(pings), next_cursor=last.next_cursor)
