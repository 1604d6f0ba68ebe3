"""Atomic batches: many writes into the bucket, all or none, each with its compare-and-set.

The server keeps the messages of a batch back until its commit and then writes them with consecutive
sequences (NATS ADR-50). A batch holds at most 1,000 messages, and a subject at most once.
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
    """One message of a batch. `expected` is the last sequence its subject must have (0: none), None: any."""

    subject: str
    payload: bytes
    headers: Mapping[str, str] = MappingProxyType({})
    expected: int | None = None


def only_if(write: Write, subject: str, sequence: int) -> Write:
    """The write, on the condition that another subject's last sequence is this one (0: it has none)."""
    headers = dict(write.headers) | {"Nats-Expected-Last-Subject-Sequence-Subject": subject}
    return write._replace(headers=headers, expected=sequence)


async def commit(client: Client, writes: list[Write], *, timeout: float = 5.0) -> int:
    """Writes all or nothing; returns the stream sequence of the first, the others follow it one by one.

    Raises StaleError when a compare-and-set failed, UnavailableError when no answer came: then the batch may
    or may not have been written, and only reading tells.
    """
    batch = AtomicBatch(client)
    await batch.send(writes)
    return await batch.commit(timeout=timeout)


class AtomicBatch:
    """A batch that is sent while it is still being made: the server takes in its first writes meanwhile."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._id = f"{_process}-{next(_numbers)}"
        self._sent = 0
        self._last: Write | None = None  # kept back, for the last write carries the commit

    async def send(self, writes: list[Write]) -> None:
        """More of its writes. Raises UnavailableError when there is no connection: then the batch is lost."""
        *ready, self._last = writes if self._last is None else [self._last, *writes]
        frames = [
            _frame(write, self._id, number) for number, write in enumerate(ready, self._sent + 1)
        ]
        self._sent += len(frames)
        try:
            await self._client.send_frames(frames)
        except (nats.errors.Error, TimeoutError) as error:
            raise UnavailableError(
                f"the bucket did not take a write: {type(error).__name__}"
            ) from None

    async def commit(self, *, timeout: float = 5.0) -> int:
        """As the function `commit`, for all that was sent."""
        assert self._last  # noqa: S101  # a batch without writes is none
        size = self._sent + 1
        headers = _own_headers(self._last) | {
            "Nats-Batch-Id": self._id,
            "Nats-Batch-Sequence": str(size),
            "Nats-Batch-Commit": "1",
        }
        try:
            reply = await self._client.request(
                self._last.subject, self._last.payload, timeout=timeout, headers=headers
            )
        except (nats.errors.Error, TimeoutError) as error:
            raise UnavailableError(
                f"the bucket did not answer a write: {type(error).__name__}"
            ) from None
        return _first_sequence(reply.data, size)


def _own_headers(write: Write) -> dict[str, str]:
    if write.expected is None:
        return dict(write.headers)
    return {**write.headers, "Nats-Expected-Last-Subject-Sequence": str(write.expected)}


def _frame(write: Write, batch: str, number: int) -> bytes:
    """One HPUB of the NATS protocol. Subjects and header values are our own: no check for line ends is owed."""
    expected = (
        ""
        if write.expected is None
        else f"Nats-Expected-Last-Subject-Sequence: {write.expected}\r\n"
    )
    others = (
        "".join([f"{name}: {value}\r\n" for name, value in write.headers.items()])
        if write.headers
        else ""
    )
    head = f"NATS/1.0\r\nNats-Batch-Id: {batch}\r\nNats-Batch-Sequence: {number}\r\n{expected}{others}\r\n".encode()
    size = len(head) + len(write.payload)
    return b"HPUB %b %d %d\r\n%b%b\r\n" % (
        write.subject.encode(),
        len(head),
        size,
        head,
        write.payload,
    )


def _first_sequence(data: bytes, size: int) -> int:
    try:
        answer = jetstream_api.answer_of(data)
    except JetStreamApiError as error:
        text = f"the bucket refused a write: {error}"
        if error.err_code == ErrorCode.WRONG_LAST_SEQUENCE:
            raise StaleError(text) from None
        raise BusError(text) from error
    last: int = answer["seq"]
    return last - size + 1
