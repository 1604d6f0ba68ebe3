"""Answers that may be larger than a message of the bus: lists are cut to a page, the rest goes as a file.

The server refuses a message above its `max_payload` (1 MB unless it is set), and the asker would
get nothing at all.
"""

from collections.abc import Iterable
from typing import TypeVar

from msgspec import Struct

from bus.contract.messages import decode, encode
from bus.errors import BadMessageError
from bus.transport.connection import Client
from bus.transport.file_transfer import FileOffer, receive
from bus.transport.micro_services import ask_raw

PAGE_BYTES = 900_000  # where the server lets messages of 1 MB pass
S = TypeVar("S", bound=Struct)
T = TypeVar("T")


def room(client: Client) -> int:
    """Bytes that an answer may have, or the list that makes up nearly all of it: the rest has a margin."""
    return min(PAGE_BYTES, client.max_payload * 7 // 8)


def fitting(entries: Iterable[S], most_bytes: int = PAGE_BYTES) -> tuple[S, ...]:
    """From the first on, as many as have room together."""
    kept, size = [], 0
    for entry in entries:
        size += len(encode(entry)) + 1
        if size > most_bytes:
            break
        kept.append(entry)
    return tuple(kept)


async def ask_whole(
    client: Client, subject: str, request: Struct, reply: type[T], *, who: str, timeout: float = 5.0
) -> T:
    """`bus.services.ask`, for an answer that is the offer of a file where it is too large: then that is fetched.

    Raises UnavailableError when the file ends early, besides what `ask` raises.
    """
    data = await ask_raw(client, subject, encode(request), who=who, timeout=timeout)
    if offer := _offer(data):
        data = b"".join([piece async for piece in receive(client, offer)])
    return decode(data, reply)


def _offer(data: bytes) -> FileOffer | None:
    """An offer is known by its fields, none of which may be missing."""
    try:
        return decode(data, FileOffer)
    except BadMessageError:
        return None
