"""Statements and files from storage as HTTP responses, a few at a time of each caller.

Files are streamed in pieces and never held whole in memory. Content-Length is the whole file's, so
that a client notices a transfer that breaks off.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from typing import Any

from litestar import Request, Response
from litestar.types import Receive, Scope, Send

from bus.client.fleet_client import FleetClient
from bus.transport.file_transfer import FileOffer
from gateway.web.access.auth import caller_of
from gateway.web.concurrency import LongRequests, Slot

# Allows what storage's printable page needs. `sandbox` keeps a script from running, should text of
# an agent ever reach the page unescaped.
_PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'; sandbox"
)


class FileResponse(Response[bytes]):
    """The pieces of a file. When the client leaves, storage is told to delete the file."""

    def __init__(
        self,
        headers: dict[str, str],
        first: bytes,
        rest: AsyncGenerator[bytes],
        slot: Slot,
    ) -> None:
        super().__init__(b"", media_type=headers["Content-Type"])
        self._wire_headers = [
            (name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()
        ]
        self._first = first
        self._rest = rest
        self._slot = slot

    def to_asgi_response(self, *_: Any, **__: Any) -> Any:
        """Litestar's hook: the ASGI application that writes the response."""
        return self._run

    async def _run(
        self,
        _scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        """Ends with the file or with the client, whichever ends first.

        Raises UnavailableError when storage stops sending.
        """
        writing = asyncio.create_task(self._write(send))
        leaving = asyncio.create_task(wait_for_disconnect(receive))
        try:
            await asyncio.wait([writing, leaving], return_when=asyncio.FIRST_COMPLETED)
        finally:
            finished = writing.done() and not writing.cancelled()
            for task in (writing, leaving):
                task.cancel()
            await asyncio.gather(writing, leaving, return_exceptions=True)
            await self._rest.aclose()
            self._slot.release()
        if finished:
            writing.result()

    async def _write(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self._wire_headers})
        await send({"type": "http.response.body", "body": self._first, "more_body": True})
        async for piece in self._rest:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class LongAnswers:
    """Makes responses of what storage computes."""

    def __init__(self, fleet_client: FleetClient) -> None:
        self._fleet_client = fleet_client
        self._requests = LongRequests()

    def begin(self, request: Request[Any, Any, Any]) -> Slot:
        """Counts the request in. Raises a 429 problem when its caller has too many."""
        return self._requests.begin(caller_of(request.scope))

    async def file(self, slot: Slot, offered: Awaitable[FileOffer]) -> FileResponse:
        """The offered file as a response; a page is shown, any other file is downloaded.

        The slot is released when the response ends, or at once when this raises. The first piece is
        fetched before the response begins, because a failure can become a problem document only
        until then. Raises UnavailableError when storage does not send it.
        """
        try:
            offer = await offered
            pieces = self._fleet_client.file(offer)
            first = await anext(pieces, b"")
        except BaseException:
            slot.release()
            raise
        return FileResponse(_headers(offer), first, pieces, slot)


def _headers(offer: FileOffer) -> dict[str, str]:
    is_page = offer.media_type.startswith("text/html")
    disposition = "inline" if is_page else "attachment"
    headers = {
        "Content-Type": offer.media_type,
        "Content-Length": str(offer.total_bytes),
        "Content-Disposition": f'{disposition}; filename="{offer.name}"',
        "Vary": "Accept",
    }
    if is_page:
        headers["Content-Security-Policy"] = _PAGE_POLICY
    return headers


async def wait_for_disconnect(receive: Receive) -> None:
    """Returns when the client has left."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
