"""Atomic batches: many writes into the bucket, all or none, each with its compare-and-set.

The server holds the messages of a batch until its commit, and then writes them with consecutive
sequences (NATS ADR-50). A batch has at most 1,000 messages, and each subject at most once.
"""

import secrets
from collections.abc import Mapping
from itertools import count
from types import MappingProxyType
from typing import NamedTuple

import nats.errors

from bus.errors import BusError, StaleError, UnavailableError
from bus.transport import jetstream_api
from bus.transport.connection import Client
from bus.transport.jetstream_api import ErrorCode, JetStreamApiError

MAX_MESSAGES = 1000
_process = secrets.token_hex(6)  # batch ids must differ between writers of one bucket
_numbers = count(1)


class Write(NamedTuple):
    """One message of a batch.

    `expected` is the last sequence that the subject must have: 0 for a new subject, None for any.
    """

    subject: str
    payload: bytes
    headers: Mapping[str, str] = MappingProxyType({})
    expected: int | None = None


def only_if(
    write: Write,
    subject: str,
    sequence: int,
) -> Write:
    """The write, on the condition that another subject's last sequence is `sequence` (0: none)."""
    headers = dict(write.headers)
    headers["Nats-Expected-Last-Subject-Sequence-Subject"] = subject
    return write._replace(headers=headers, expected=sequence)


async def commit(
    client: Client,
    writes: list[Write],
    *,
    timeout: float = 5.0,
) -> int:
    """Writes all or nothing. Returns the stream sequence of the first; the others follow it.

    Raises StaleError when a compare-and-set failed, and UnavailableError when no answer came. The
    batch may have been written then or not; only reading the keys tells.
    """
    batch = AtomicBatch(client)
    await batch.send(writes)
    return await batch.commit(timeout=timeout)


class AtomicBatch:
    """A batch that is sent in parts: the server receives the first writes while others are made."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._id = f"{_process}-{next(_numbers)}"
        self._sent = 0
        self._last: Write | None = None  # not yet sent, because the last write carries the commit

    async def send(self, writes: list[Write]) -> None:
        """Sends more writes. Raises UnavailableError without a connection: the batch is lost."""
        if self._last is not None:
            writes = [self._last, *writes]
        *ready, self._last = writes
        frames = []
        for number, write in enumerate(ready, self._sent + 1):
            frames.append(_frame(write, self._id, number))
        self._sent += len(frames)
        try:
            await self._client.send_frames(frames)
        except (nats.errors.Error, TimeoutError) as error:
            raise UnavailableError(
                f"the bucket did not take a write: {type(error).__name__}"
            ) from None

    async def commit(self, *, timeout: float = 5.0) -> int:
        """Commits all that was sent. Returns and raises as the function `commit` does."""
        assert self._last  # noqa: S101  # there is no batch without writes
        size = self._sent + 1
        headers = dict(self._last.headers)
        if self._last.expected is not None:
            headers["Nats-Expected-Last-Subject-Sequence"] = str(self._last.expected)
        headers["Nats-Batch-Id"] = self._id
        headers["Nats-Batch-Sequence"] = str(size)
        headers["Nats-Batch-Commit"] = "1"
        try:
            reply = await self._client.request(
                self._last.subject, self._last.payload, timeout=timeout, headers=headers
            )
        except (nats.errors.Error, TimeoutError) as error:
            raise UnavailableError(
                f"the bucket did not answer a write: {type(error).__name__}"
            ) from None
        return _first_sequence(reply.data, size)


def _frame(
    write: Write,
    batch: str,
    number: int,
) -> bytes:
    """One HPUB of the NATS protocol.

    Subjects and header values are built by this program and have no line ends, so nothing is
    checked. It is written by hand because nats-py's `publish` would be most of the cost of a ping's
    commit.
    """
    lines = f"NATS/1.0\r\nNats-Batch-Id: {batch}\r\nNats-Batch-Sequence: {number}\r\n"
    if write.expected is not None:
        lines += f"Nats-Expected-Last-Subject-Sequence: {write.expected}\r\n"
    for name, value in write.headers.items():
        lines += f"{name}: {value}\r\n"
    head = lines.encode() + b"\r\n"
    payload = write.payload
    size = len(head) + len(payload)
    command = b"HPUB %b %d %d\r\n" % (write.subject.encode(), len(head), size)
    return b"%b%b%b\r\n" % (command, head, payload)


def _first_sequence(data: bytes, size: int) -> int:
    try:
        answer = jetstream_api.answer_of(data)
    except JetStreamApiError as error:
        text = f"the bucket refused a write: {error}"
        if error.err_code == ErrorCode.WRONG_LAST_SEQUENCE:
            raise StaleError(text) from None
        raise BusError(text) from error
    last: int | None = answer.get("seq")
    if last is None:
        raise UnavailableError("the bucket's answer to a write names no sequence")
    return last - size + 1
