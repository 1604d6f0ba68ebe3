"""What the ledger's file is made of: one record a line, each behind a checksum, readable with any pager.

The ledger is the sum of its records: replaying them gives it back exactly. Positions (`at`, `until`) are
milliseconds of ledger time; `wall` is milliseconds of the Unix epoch and only ever a label.
"""

import zlib

import msgspec
from msgspec import Struct

from bus.contract.messages import GpuState

FORMAT = 1
HOST = ""  # stands where a GPU's UUID stands, for the host's own timeline


class Began(Struct, frozen=True, array_like=True, tag="began"):
    """First record of every file: which ledger this is. Marks carry `ledger`, so a wiped one is noticed."""

    format: int
    ledger: str
    wall: int


class Resumed(Struct, frozen=True, array_like=True, tag="resumed"):
    """A process took the ledger up. From here on a position is `BOOTTIME - offset`, on that boot."""

    session: str
    boot: str
    offset: int


class Expected(Struct, frozen=True, array_like=True, tag="expected"):
    """The GPUs that this host is judged by."""

    uuids: tuple[str, ...]


class Seen(Struct, frozen=True, array_like=True, tag="gpu"):
    """A GPU's label."""

    uuid: str
    index: int | None
    name: str


class Forgot(Struct, frozen=True, array_like=True, tag="forgot"):
    """A GPU that is gone and that nobody expected."""

    uuid: str


class Change(Struct, frozen=True, array_like=True, tag="is"):
    """From `at` on, `gpu` (or HOST) is in this state."""

    at: int
    gpu: str
    state: GpuState
    reasons: tuple[str, ...] = ()
    wide: bool = False


class Known(Struct, frozen=True, array_like=True, tag="known"):
    """The last change holds at least until here; `checks` were made since the ledger began."""

    until: int
    wall: int
    checks: int


class Noted(Struct, frozen=True, array_like=True, tag="event"):
    """An event that is worth an incident and changes no state."""

    at: int
    gpu: str
    reason: str


class Counted(Struct, frozen=True, array_like=True, tag="counted"):
    """A report that counts covered the time up to here."""

    at: int


Record = Began | Resumed | Expected | Seen | Forgot | Change | Known | Noted | Counted

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Record)


def line(record: Record) -> bytes:
    """The record as its line in the file."""
    body = _encoder.encode(record)
    return b"%08x %b\n" % (zlib.crc32(body), body)


def read(data: bytes) -> tuple[list[Record], int]:
    """The valid records that `data` begins with, and how many bytes of it they are."""
    records: list[Record] = []
    good = 0
    for raw in data.splitlines(keepends=True):
        record = _parse(raw)
        if record is None:
            break
        records.append(record)
        good += len(raw)
    return records, good


def _parse(raw: bytes) -> Record | None:
    if not raw.endswith(b"\n"):
        return None
    checksum, _, body = raw[:-1].partition(b" ")
    try:
        if checksum == b"%08x" % zlib.crc32(body):
            record: Record = _decoder.decode(body)
            return record
    except (
        ValueError
    ):  # msgspec's errors are ValueErrors: what checks out, but is no record of ours
        pass
    return None
