"""Answers about the past as files. Storage writes them; they pass through piece by piece, never whole in memory.

The whole length is announced, so that a transfer that breaks off cannot pass for a file.
"""

from collections.abc import AsyncIterator

from litestar.response import Stream

from bus.transport.file_transfer import FileOffer

# what storage's printable page needs, and nothing else; `sandbox`: whatever an agent smuggled into it stays text
_PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'; sandbox"
)


async def stream_file(pieces: AsyncIterator[bytes], offer: FileOffer) -> Stream:
    """The file as an answer. Its first piece is fetched here: once an answer has begun it cannot become a problem."""
    first = await anext(pieces, b"")
    headers = {
        "Content-Type": offer.media_type,
        "Content-Length": str(offer.total_bytes),
        "Content-Disposition": f'{_disposition(offer)}; filename="{offer.name}"',
        "Vary": "Accept",
    }
    if offer.media_type.startswith("text/html"):
        headers["Content-Security-Policy"] = _PAGE_POLICY
    return Stream(_all(first, pieces), headers=headers)


async def _all(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in rest:
        yield piece


def _disposition(offer: FileOffer) -> str:
    return "inline" if offer.media_type.startswith("text/html") else "attachment"
