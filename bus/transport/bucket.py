"""Reading one key of the bucket from the stream's leader: what was acknowledged before is seen."""

import base64
from datetime import datetime
from typing import Any, Generic, NamedTuple, TypeVar

from msgspec import Struct

from bus.contract import subjects
from bus.contract.messages import decode
from bus.errors import BusError
from bus.transport import jetstream_api
from bus.transport.connection import Client
from bus.transport.jetstream_api import ErrorCode, JetStreamApiError

S = TypeVar("S", bound=Struct)


class KeyValue(NamedTuple, Generic[S]):
    """A value, its revision (stream sequence) and when it was written (nanoseconds since 1970)."""

    value: S
    revision: int
    time_ns: int


async def read(client: Client, key: str, kind: type[S]) -> KeyValue[S] | None:
    """The last revision of a key (a full subject), or None when there is none or it was deleted.

    Raises UnavailableError, or BadMessageError for a value that is not a `kind`.
    """
    message = await _last(client, key)
    if message is None or "data" not in message:
        return None
    value = decode(base64.b64decode(message["data"]), kind)
    return KeyValue(
        value, message["seq"], int(datetime.fromisoformat(message["time"]).timestamp() * 1e9)
    )


async def last_sequence(client: Client, subject_filter: str) -> int:
    """The sequence of the newest message under a subject filter; 0 when there is none."""
    message = await _last(client, subject_filter)
    if message is None:
        return 0
    sequence: int = message["seq"]
    return sequence


async def _last(client: Client, subject: str) -> dict[str, Any] | None:
    verb = f"STREAM.MSG.GET.{subjects.BUCKET_STREAM}"
    try:
        answer = await jetstream_api.call(client, verb, {"last_by_subj": subject})
    except JetStreamApiError as error:
        if error.err_code == ErrorCode.MESSAGE_NOT_FOUND:
            return None
        raise BusError(f"{subject}: {error}") from None
    message: dict[str, Any] = answer["message"]
    return message
