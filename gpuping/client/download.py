"""A file that is ready to be fetched, over the bus or over REST."""

from collections.abc import AsyncIterator
from typing import NamedTuple


class Download(NamedTuple):
    """`name` is one to save the file under. `total_bytes` is None where a proxy hides it."""

    name: str
    total_bytes: int | None
    pieces: AsyncIterator[bytes]
