"""Files from storage as HTTP responses. They are streamed in pieces and never held whole in memory.

Content-Length is the whole file's, so that a client notices a transfer that breaks off.
"""

from collections.abc import AsyncIterator

from litestar.response import Stream

from bus.client.fleet_client import FleetClient
from bus.transport.file_transfer import FileOffer

# Allows what storage's printable page needs. `sandbox` keeps a script from running, should text of
# an agent ever reach the page unescaped.
_PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'; sandbox"
)


async def stream_file(fleet_client: FleetClient, offer: FileOffer) -> Stream:
    """The offered file as a response; a page is shown, any other file is downloaded.

    The first piece is fetched before the response begins, because a failure can become a problem
    document only until then. Raises UnavailableError when storage does not send it.
    """
    pieces = fleet_client.file(offer)
    first = await anext(pieces, b"")
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
    return Stream(_all_pieces(first, pieces), headers=headers)


async def _all_pieces(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in rest:
        yield piece
