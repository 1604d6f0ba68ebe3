"""Entries of the audit log: who changed what, from where, and how it was before and after.

Only what somebody did is recorded. What follows from rules, such as pings that are due, is in
history.
"""

import hashlib
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from bus.contract.messages import Message, Timestamp, check_timestamps
from bus.contract.subjects import END

Action = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9-]{0,31}" + END)]

# A longer value is replaced by its size and hash, so that no entry takes more than a few kilobytes:
# an agent writes its own metadata, and could otherwise fill the disk through the audit log.
LONGEST_VALUE_BYTES = 2048


class AuditEntry(Message, kw_only=True, frozen=True):
    """One change. `action` is what was done, such as `register`, `remove` or `ping`.

    `actor` is `token <name>`, `agent <id>`, `user of the bus`, or `anonymous` where no token is
    needed.
    `address` is the IP address that asked over HTTP; None for what was asked over the bus.
    `before` and `after` hold the fields that differ; None where there was nothing to compare.
    `left_out` changes of this kind by this actor before it are not in the log: there were too many.
    `sequence` is the number in the log, which only the log itself gives.
    """

    at: Timestamp
    action: Action
    actor: str
    address: str | None = None
    agent_id: str | None = None
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    left_out: int = 0
    sequence: int = 0

    def __post_init__(self) -> None:
        check_timestamps(self.at)


class AuditPage(Message, kw_only=True, frozen=True):
    """Entries, the newest first. `next_cursor` asks for those before them; None for no more.

    `dropped` entries at the beginning of the log are gone: they were too old, or it was full.
    """

    entries: tuple[AuditEntry, ...]
    next_cursor: int | None = None
    dropped: int = 0


class Change(Struct, frozen=True):
    """What differs between two states of one thing."""

    before: dict[str, Any]
    after: dict[str, Any]

    def __bool__(self) -> bool:
        return bool(self.before or self.after)


def changed_fields(before: Any, after: Any) -> Change:
    """The fields of two Structs or dicts that differ. None stands for a thing that is not there."""
    old = _fields(before)
    new = _fields(after)
    change = Change({}, {})
    for name in sorted({*old, *new}):
        if old.get(name) == new.get(name):
            continue
        if name in old:
            change.before[name] = _bounded(old[name])
        if name in new:
            change.after[name] = _bounded(new[name])
    return change


def _fields(thing: Any) -> dict[str, Any]:
    if thing is None:
        return {}
    fields: dict[str, Any] = msgspec.to_builtins(thing)
    return fields


def _bounded(value: Any) -> Any:
    data = msgspec.json.encode(value)
    if len(data) <= LONGEST_VALUE_BYTES:
        return value
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
