"""A file that is ready to be fetched, whichever source it comes from."""

from collections.abc import AsyncIterator
from typing import NamedTuple


class Download(NamedTuple):
    """`total_bytes` is what must arrive, None where a proxy hides it; `name` is one to save it under."""

    name: str
    total_bytes: int | None
    pieces: AsyncIterator[bytes]
