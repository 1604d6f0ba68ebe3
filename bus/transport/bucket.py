"""Reads of keys from the stream's leader: a read sees every write that was acknowledged."""

import base64
from datetime import datetime
from typing import Generic, NamedTuple, TypeVar

from msgspec import Struct

from bus.contract import subjects
from bus.contract.messages import decode
from bus.errors import BusError
from bus.transport import jetstream_api
from bus.transport.connection import Client
from bus.transport.jetstream_api import ErrorCode, JetStreamApiError, JsonObject

S = TypeVar("S", bound=Struct)
LIST_SECONDS = 30.0  # until the server has listed the keys of a large fleet


class KeyValue(NamedTuple, Generic[S]):
    """A value, its revision (stream sequence) and when it was written (ns since 1970)."""

    value: S
    revision: int
    time_ns: int


async def read(
    client: Client,
    key: str,
    kind: type[S],
) -> KeyValue[S] | None:
    """The last revision of a key (a full subject). None when it does not exist or was deleted.

    Raises UnavailableError when the server does not answer, and BadMessageError when the value
    cannot be decoded as `kind`.
    """
    message = await _last(client, key)
    if message is None or "data" not in message:
        return None
    value = decode(base64.b64decode(message["data"]), kind)
    written_at = datetime.fromisoformat(message["time"])
    return KeyValue(value, message["seq"], int(written_at.timestamp() * 1e9))


async def last_sequence(
    client: Client,
    subject_filter: str,
    stream: str = subjects.BUCKET_STREAM,
) -> int:
    """The sequence of the newest message under a subject filter; 0 without any."""
    message = await _last(client, subject_filter, stream)
    if message is None:
        return 0
    sequence: int = message["seq"]
    return sequence


async def keys(client: Client, pattern: str) -> list[str]:
    """The keys (full subjects) that have a value or were deleted, under a pattern with wildcards.

    Raises JetStreamApiError, and UnavailableError when the server does not answer.
    """
    verb = f"STREAM.INFO.{subjects.BUCKET_STREAM}"
    found: list[str] = []
    while True:
        question = {"subjects_filter": pattern, "offset": len(found)}
        information = await jetstream_api.call(client, verb, question, timeout=LIST_SECONDS)
        page = information["state"].get("subjects") or {}
        found += page
        # The server answers with 100,000 subjects at most, and says how many there are.
        if not page or len(found) >= information.get("total", 0):
            return found


async def _last(
    client: Client,
    subject: str,
    stream: str = subjects.BUCKET_STREAM,
) -> JsonObject | None:
    verb = f"STREAM.MSG.GET.{stream}"
    try:
        answer = await jetstream_api.call(client, verb, {"last_by_subj": subject})
    except JetStreamApiError as error:
        if error.err_code == ErrorCode.MESSAGE_NOT_FOUND:
            return None
        raise BusError(f"{subject}: {error}") from None
    message: JsonObject = answer["message"]
    return message
