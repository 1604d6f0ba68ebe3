"""An agent's newest outcomes, on however many pages they come: a page ends early where a message carries no more."""

from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from bus.contract.questions import HistoryReply, HistoryRequest

Page = Callable[[HistoryRequest], Awaitable[HistoryReply]]


async def newest(request: HistoryRequest, page: Page) -> HistoryReply:
    """As many as `request.limit`, and the summary of the whole period."""
    reply = last = await page(request)
    pings = list(reply.pings)
    while last.pings and last.next_cursor is not None and len(pings) < request.limit:
        last = await page(
            replace(request, limit=request.limit - len(pings), cursor=last.next_cursor)
        )
        pings += last.pings
    return replace(reply, pings=tuple(pings), next_cursor=last.next_cursor)
