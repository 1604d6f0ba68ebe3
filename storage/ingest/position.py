"""How far history has read the stream. Pure: no clock, no database."""

import hashlib
from operator import attrgetter

from msgspec import Struct

from storage.engine.rows import Arrival


class Position(Struct, frozen=True):
    """The last message that was read. `stream_us` is the creation time of its stream."""

    stream_us: int
    sequence: int
    fingerprint: str


def fingerprint(data: bytes, agent_id: str) -> str:
    """Returns what tells whether the same message still has its sequence number.

    A tombstone is empty, so its agent stands in for its content.
    """
    return hashlib.sha256(data or agent_id.encode()).hexdigest()[:32]


def position_after(
    before: Position | None,
    stream_us: int,
    batch: list[Arrival],
) -> Position:
    """Returns the position after a batch.

    Within one stream it never goes back, for a batch may be read again.
    """
    last = max(batch, key=attrgetter("sequence"))
    if before is not None and before.stream_us == stream_us and before.sequence >= last.sequence:
        return before
    return Position(stream_us, last.sequence, fingerprint(last.data, last.agent_id))
