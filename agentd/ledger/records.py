"""The records of the ledger's file: one a line, each behind a checksum, readable with any pager.

On a host with keys a seal stands between the two, which `chain.py` explains.

Replaying all records in order gives the ledger back exactly. Positions (`at`, `until`) are
milliseconds of ledger time. `wall` is milliseconds of the Unix epoch and is only ever a label.
"""

import zlib
from typing import NamedTuple

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


class Anchored(Struct, frozen=True, array_like=True, tag="anchor"):
    """The second record of a sealed file: where its chain goes on.

    `key` is the public key of the host that sealed it. `head` is the head of the chain when the
    file was written anew, `reported` are the heads that were in reports, oldest first.
    """

    ledger: str
    key: str
    head: str
    reported: tuple[str, ...]


class Distrusted(Struct, frozen=True, array_like=True, tag="distrusted"):
    """What was recorded before `at` cannot be proven; it is unknown."""

    at: int


Record = (
    LedgerCreated
    | Anchored
    | Distrusted
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


class Line(NamedTuple):
    """One line of the file. `body` is the record as JSON, `seal` is empty where there is none."""

    record: Record
    body: bytes
    seal: bytes
    length: int


def encode_body(record: Record) -> bytes:
    """The record as JSON, which begins with `[`."""
    return _encoder.encode(record)


def to_line(body: bytes, seal: bytes = b"") -> bytes:
    """The line of a record that `encode_body` encoded."""
    sealed = body
    if seal:
        sealed = seal + b" " + body
    return b"%08x %b\n" % (zlib.crc32(sealed), sealed)


def encode_line(record: Record) -> bytes:
    """The record as its line in a file without seals."""
    return to_line(encode_body(record))


def read(data: bytes) -> tuple[list[Record], int]:
    """Returns the valid records at the start of `data`, and the number of bytes that they take."""
    lines = read_lines(data)
    return [line.record for line in lines], sum(line.length for line in lines)


def read_lines(data: bytes) -> list[Line]:
    """Returns the valid lines at the start of `data`. Seals are not looked at."""
    lines: list[Line] = []
    for raw in data.splitlines(keepends=True):
        line = _parse(raw)
        if line is None:
            break
        lines.append(line)
    return lines


def _parse(raw: bytes) -> Line | None:
    """Returns None for a line that is incomplete, fails its checksum, or is not a record."""
    if not raw.endswith(b"\n"):
        return None
    checksum, _, sealed = raw[:-1].partition(b" ")
    if checksum != b"%08x" % zlib.crc32(sealed):
        return None
    seal = b""
    body = sealed
    if not sealed.startswith(b"["):
        seal, _, body = sealed.partition(b" ")
    try:
        record: Record = _decoder.decode(body)
    except ValueError:  # msgspec's errors are ValueErrors
        return None
    return Line(record, body, seal, len(raw))
