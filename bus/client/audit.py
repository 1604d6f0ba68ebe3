"""The audit log: an append-only stream on the bus, written by whoever carries out a change.

The stream refuses deletion and purging of its messages, so that an entry can only expire. The
scheduler and the gateway may write to it, agents may not (`bus/identity/roles.py`).
"""

import asyncio
import contextlib
from typing import Any

import msgspec
import nats.errors
import structlog

from bus.clock import utc_now
from bus.contract import subjects
from bus.contract.audit import AuditEntry, AuditPage, changed_fields
from bus.contract.messages import decode, encode
from bus.contract.questions import Ping
from bus.errors import BadMessageError, BusError
from bus.transport import jetstream_api
from bus.transport.connection import Client
from bus.transport.jetstream_api import JetStreamApiError

log = structlog.get_logger("bus.client.audit")

# A user of the bus who asked without a gateway: the bus tells no names.
UNNAMED_ACTOR = "user of the bus"
RECORD_SECONDS = 5.0
READ_AT_ONCE = 50


async def record(  # noqa: PLR0913  # the fields of an entry, most of which are optional
    client: Client,
    action: str,
    actor: str,
    *,
    address: str | None = None,
    agent_id: str | None = None,
    before: Any = None,
    after: Any = None,
    left_out: int = 0,
    timeout: float = RECORD_SECONDS,
) -> None:
    """Appends one entry about a change that was carried out, and returns when it is stored.

    `before` and `after` are Structs or dicts, of which the fields that differ are kept. Never
    raises: the change cannot be taken back, so an entry that cannot be stored goes to the log of
    this process, whole.
    """
    change = changed_fields(before, after)
    entry = AuditEntry(
        at=utc_now(),
        action=action,
        actor=actor,
        address=address,
        agent_id=agent_id,
        before=change.before if before is not None else None,
        after=change.after if after is not None else None,
        left_out=left_out,
    )
    try:
        subject = subjects.audit(action)
        reply = await client.request(subject, encode(entry), timeout=timeout)
        jetstream_api.answer_of(reply.data)
    except (BusError, nats.errors.Error, TimeoutError, OSError, msgspec.DecodeError) as error:
        log.error("audit_record_failed", detail=str(error), entry=msgspec.to_builtins(entry))


def outcome(ping: Ping) -> dict[str, Any]:
    """What is recorded of a ping by hand."""
    return {"ping_seq": ping.ping_seq, "outcome": ping.outcome, "verdict": ping.verdict}


async def read_page(
    client: Client,
    limit: int,
    before: int | None = None,
) -> AuditPage:
    """The newest `limit` entries, or the newest ones with a smaller sequence than `before`.

    Entries that cannot be decoded are left out. Raises BusError when the log cannot be read.
    """
    state = await _stream_state(client)
    newest = state["last_seq"]
    if before is not None:
        newest = min(newest, before - 1)
    oldest = max(state["first_seq"], newest - limit + 1)
    numbers = range(newest, oldest - 1, -1)
    entries: list[AuditEntry] = []
    for begin in range(0, len(numbers), READ_AT_ONCE):
        found = await asyncio.gather(
            *[_entry(client, number) for number in numbers[begin : begin + READ_AT_ONCE]]
        )
        entries += [entry for entry in found if entry is not None]
    next_cursor = oldest if numbers and oldest > state["first_seq"] else None
    dropped = max(0, state["first_seq"] - 1)
    return AuditPage(entries=tuple(entries), next_cursor=next_cursor, dropped=dropped)


async def _stream_state(client: Client) -> dict[str, Any]:
    try:
        info = await jetstream_api.call(client, f"STREAM.INFO.{subjects.AUDIT_STREAM}")
    except JetStreamApiError as error:
        if error.is_not_found:
            return {"first_seq": 1, "last_seq": 0}
        raise
    state: dict[str, Any] = info["state"]
    return state


async def _entry(client: Client, sequence: int) -> AuditEntry | None:
    with contextlib.suppress(JetStreamApiError, BadMessageError):
        data = await jetstream_api.message(client, subjects.AUDIT_STREAM, sequence)
        return msgspec.structs.replace(decode(data, AuditEntry), sequence=sequence)
    return None
