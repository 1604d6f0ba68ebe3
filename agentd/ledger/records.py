"""The records of the ledger's file: one a line, each behind a checksum, readable with any pager.

Replaying all records in order gives the ledger back exactly. Positions (`at`, `until`) are
milliseconds of ledger time. `wall` is milliseconds of the Unix epoch and is only ever a label.
"""

import zlib

import msgspec
from msgspec import Struct

from bus.contract.messages import GpuState

FORMAT = 1
HOST = ""  # stands in the place of a GPU's UUID for the host's own timeline


class LedgerCreated(Struct, frozen=True, array_like=True, tag="began"):
    """The first record of every file.

    Marks carry `ledger`, so a mark of a wiped ledger is recognised.
    """

    format: int
    ledger: str
    wall: int


class ProcessStarted(Struct, frozen=True, array_like=True, tag="resumed"):
    """A process opened the ledger. From here on, a position is `BOOTTIME - offset` of that boot."""

    session: str
    boot: str
    offset: int


class ExpectedGpus(Struct, frozen=True, array_like=True, tag="expected"):
    """The GPUs that this host is judged by."""

    uuids: tuple[str, ...]


class GpuLabelled(Struct, frozen=True, array_like=True, tag="gpu"):
    """A GPU's index and name, as last seen."""

    uuid: str
    index: int | None
    name: str


class GpuForgotten(Struct, frozen=True, array_like=True, tag="forgot"):
    """A GPU that is gone and was not expected; its timeline is dropped."""

    uuid: str


class ConditionChanged(Struct, frozen=True, array_like=True, tag="is"):
    """From `at` on, `gpu` (or HOST) is in this state.

    `host_wide` reasons concern the whole host.
    """

    at: int
    gpu: str
    state: GpuState
    reasons: tuple[str, ...] = ()
    host_wide: bool = False


class Progress(Struct, frozen=True, array_like=True, tag="known"):
    """The conditions hold until `until` at least; `checks` were made since the ledger began."""

    until: int
    wall: int
    checks: int


class EventNoted(Struct, frozen=True, array_like=True, tag="event"):
    """An event that is shown as an incident and changes no state."""

    at: int
    gpu: str
    reason: str


class CountedUntil(Struct, frozen=True, array_like=True, tag="counted"):
    """A report that counts covered the time up to `at`."""

    at: int


Record = (
    LedgerCreated
    | ProcessStarted
    | ExpectedGpus
    | GpuLabelled
    | GpuForgotten
    | ConditionChanged
    | Progress
    | EventNoted
    | CountedUntil
)

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Record)


def encode_line(record: Record) -> bytes:
    """The record as its line in the file."""
    body = _encoder.encode(record)
    return b"%08x %b\n" % (zlib.crc32(body), body)


def read(data: bytes) -> tuple[list[Record], int]:
    """Returns the valid records at the start of `data`, and the number of bytes that they take."""
    records: list[Record] = []
    valid_bytes = 0
    for raw in data.splitlines(keepends=True):
        record = _parse(raw)
        if record is None:
            break
        records.append(record)
        valid_bytes += len(raw)
    return records, valid_bytes


def _parse(raw: bytes) -> Record | None:
    """Returns None for a line that is incomplete, fails its checksum, or is not a record."""
    if not raw.endswith(b"\n"):
        return None
    checksum, _, body = raw[:-1].partition(b" ")
    if checksum != b"%08x" % zlib.crc32(body):
        return None
    try:
        record: Record = _decoder.decode(body)
    except ValueError:  # msgspec's errors are ValueErrors
        return None
    return record
