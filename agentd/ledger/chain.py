"""The chain of a ledger's records: whoever changes one without the host's key is noticed.

Each record is hashed onto those before it, and each line carries a seal, which only the host's key
makes. So a line that was changed on the disk does not fit, even where its checksum was mended. The
head of the chain goes into every signed report, and the scheduler holds the last one: a ledger that
does not contain it any more is noticed at the next report, whoever made its seals.

A file that is written anew begins with an anchor: the head until then, and the heads that were in
reports. docs/security.md says what is noticed and what is not.
"""

import hmac
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from agentd.ledger.records import (
    Anchored,
    CountedUntil,
    Line,
    Record,
    encode_body,
    read_lines,
    to_line,
)
from bus.identity.ledger_heads import BROKEN, FORGOTTEN, NEW_LEDGER
from bus.identity.signatures import GENESIS, ledger_head

EMPTY = bytes(32)
HEADS_KEPT = 200  # two days of reports; a bus restored from an older backup asks for one before
SEAL_DIGITS = 16


class SealKey(NamedTuple):
    """What a host seals its ledger with. `public` is its signing key, `secret` is derived of it."""

    public: str
    secret: bytes


class ReadRecords(NamedTuple):
    """What a file holds. `is_edited`: its next line was changed by somebody without the key."""

    records: list[Record]
    valid_bytes: int
    is_edited: bool


class LedgerChain:
    """The chain of one ledger. Without a key there is none, and lines have no seals."""

    def __init__(self, key: SealKey | None = None) -> None:
        self._key = key
        self._head = EMPTY
        self._reported: deque[str] = deque(maxlen=HEADS_KEPT)  # oldest first

    @property
    def newest_reported(self) -> str:
        """The head after the newest report that counts, as hexadecimal digits; empty before it."""
        if not self._reported:
            return ""
        return self._reported[-1]

    def line(self, record: Record) -> bytes:
        """Adds a record to the chain, and returns its line."""
        body = encode_body(record)
        if self._key is None:
            return to_line(body)
        self._add(body)
        if isinstance(record, CountedUntil):
            self._reported.append(self._head.hex())
        return to_line(body, self._seal(self._key))

    def whole_file(self, ledger: str, records: Iterable[Record]) -> bytes:
        """Returns the lines of a file that has these records and an anchor of what was before."""
        first, *others = records
        if self._key is None:
            return b"".join(to_line(encode_body(record)) for record in (first, *others))
        lines = []
        anchor = Anchored(ledger, self._key.public, self._head.hex(), tuple(self._reported))
        before = self._head
        self._head = EMPTY
        lines.append(self._sealed_line(self._key, encode_body(first)))
        self._head = before
        for record in (anchor, *others):
            lines.append(self._sealed_line(self._key, encode_body(record)))
        return b"".join(lines)

    def _sealed_line(self, key: SealKey, body: bytes) -> bytes:
        self._add(body)
        return to_line(body, self._seal(key))

    def read(self, data: bytes) -> ReadRecords:
        """Takes up the chain of a file, up to the first line that is damaged or was changed.

        A file that another key sealed, or none, is read as it is. Nothing in it is proven, so no
        head of an earlier report is known.
        """
        lines = read_lines(data)
        anchor = None
        if len(lines) > 1 and isinstance(lines[1].record, Anchored):
            anchor = lines[1].record
        if self._key is None or anchor is None or anchor.key != self._key.public:
            return _found(lines, is_edited=False)
        valid = self._valid_lines(self._key, lines, anchor)
        is_edited = valid < len(lines)
        if is_edited:
            self._reported.clear()
        return _found(lines[:valid], is_edited=is_edited)

    def _valid_lines(
        self,
        key: SealKey,
        lines: list[Line],
        anchor: Anchored,
    ) -> int:
        """Follows the chain, and returns how many lines have the right seal."""
        for number, line in enumerate(lines):
            if number == 1:
                self._head = _from_hexadecimal(anchor.head)
                self._reported.extend(anchor.reported)
            self._add(line.body)
            if not hmac.compare_digest(line.seal, self._seal(key)):
                return number
            if isinstance(line.record, CountedUntil):
                self._reported.append(self._head.hex())
        return len(lines)

    def extension(self, ledger: str, heads: tuple[str, ...]) -> str:
        """Says what this chain is to the heads of reports that the scheduler holds, newest first.

        Returns the newest of them that this chain contains, or a word of `ledger_heads`.
        """
        if not heads:
            return GENESIS
        for head in heads:
            of, _, digits = head.partition(".")
            if of == ledger and digits in self._reported:
                return head
        if heads[0].partition(".")[0] != ledger:
            return NEW_LEDGER
        if len(self._reported) == HEADS_KEPT:
            return FORGOTTEN
        return BROKEN

    def _add(self, body: bytes) -> None:
        self._head = ledger_head(self._head, body)

    def _seal(self, key: SealKey) -> bytes:
        seal = hmac.digest(key.secret, self._head, "sha256")
        return seal.hex()[:SEAL_DIGITS].encode()


def _from_hexadecimal(digits: str) -> bytes:
    """The bytes; none for a text that is no number, which then fits no seal."""
    try:
        return bytes.fromhex(digits)
    except ValueError:
        return b""


def _found(lines: list[Line], *, is_edited: bool) -> ReadRecords:
    records = [line.record for line in lines]
    return ReadRecords(records, sum(line.length for line in lines), is_edited)
