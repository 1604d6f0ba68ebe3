"""Answers that may be larger than a message: lists are cut to a page, the rest is sent as a file.

The server refuses a message above its `max_payload` (1 MB by default), and the asker would get no
answer at all.
"""

from collections.abc import Iterable
from typing import TypeVar

from msgspec import Struct

from bus.contract.messages import decode, encode
from bus.errors import BadMessageError
from bus.transport.connection import Client
from bus.transport.file_transfer import FileOffer, receive
from bus.transport.micro_services import Requesting, ask_raw

PAGE_BYTES = 900_000  # for a server that accepts messages of 1 MB
S = TypeVar("S", bound=Struct)
T = TypeVar("T")


def room(client: Client) -> int:
    """The bytes that an answer may have, with a margin below the server's limit."""
    return min(PAGE_BYTES, client.max_payload * 7 // 8)


def fitting(entries: Iterable[S], most_bytes: int = PAGE_BYTES) -> tuple[S, ...]:
    """As many entries, from the first on, as fit into `most_bytes` together."""
    kept = []
    size = 0
    for entry in entries:
        size += len(encode(entry)) + 1
        if size > most_bytes:
            break
        kept.append(entry)
    return tuple(kept)


async def ask_whole(
    client: Client,
    subject: str,
    request: Struct,
    reply: type[T],
    *,
    who: str,
    timeout: float = 5.0,
    requesting: Requesting | None = None,
) -> T:
    """Asks as `micro_services.ask` does; an answer that was offered as a file is fetched.

    Raises UnavailableError when the file ends early, and all that `ask` raises.
    """
    data = await ask_raw(
        client, subject, encode(request), who=who, timeout=timeout, requesting=requesting
    )
    offer = _offer(data)
    if offer is not None:
        data = b"".join([piece async for piece in receive(client, offer)])
    return decode(data, reply)


def _offer(data: bytes) -> FileOffer | None:
    """Returns None for any other message: an offer has fields that no answer has."""
    try:
        return decode(data, FileOffer)
    except BadMessageError:
        return None
