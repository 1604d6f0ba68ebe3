"""The part of a scheduler's state that history keeps.

A message is decoded once, into no more than this.

The fields are declared in `bus.contract.messages`. `narrowed` makes types from them that have only
the fields named here, and refuse values that could not be a row: a number or a latency too large
for its column. Decoding with fewer fields is what makes ingest quick, so these types are generated
and not written down again.

With `gc=False` Python's collector does not look at them. Ten thousand at once have no reference
cycles, and looking for some costs 1.6 us a message (measured).
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta
from msgspec.structs import FieldInfo

from bus.contract.messages import (
    AgentState,
    Outcome,
    UptimeReport,
    Window,
    check_timestamps,
)

# The largest latency (ms) and interval (s): a thousand times as much still fits a BIGINT.
LONGEST = 2.0**52

PingSeq = Annotated[int, Meta(ge=1, le=2**63 - 1)]
Latency = Annotated[float, Meta(ge=-LONGEST, le=LONGEST)]


def narrowed(
    name: str,
    declared: Any,
    fields: tuple[str, ...] | None = None,
    /,
    *,
    namespace: dict[str, Any] | None = None,
    **narrower: Any,
) -> Any:
    """Returns a Struct type for the same JSON as `declared`, with only some of its fields.

    `fields` are their names, None means all of them. `narrower` replaces types. A type alone makes
    the field required; a tuple of type and default does not. Raises ValueError for a field that
    `declared` does not have.
    """
    known = {field.name: field for field in msgspec.structs.fields(declared)}
    wanted = fields or tuple(known)
    unknown = {*wanted, *narrower} - set(known)
    if unknown:
        raise ValueError(f"{declared.__name__} has no field {sorted(unknown)}")
    definitions: list[tuple[Any, ...]] = []
    # In the order of the declaration, which is the order of the JSON: msgspec tries the next field
    # first.
    for field in known.values():
        if field.name not in wanted:
            continue
        if field.name not in narrower:
            definitions.append(_as_declared(field))
        elif isinstance(narrower[field.name], tuple):
            definitions.append((field.name, *narrower[field.name]))
        else:
            definitions.append((field.name, narrower[field.name]))
    return msgspec.defstruct(
        name,
        definitions,
        frozen=True,
        gc=False,
        kw_only=True,
        module=__name__,
        namespace=namespace,
    )


def _as_declared(field: FieldInfo) -> tuple[Any, ...]:
    if field.default is not msgspec.NODEFAULT:
        return (field.name, field.type, field.default)
    if field.default_factory is not msgspec.NODEFAULT:
        default = msgspec.field(default_factory=field.default_factory)
        return (field.name, field.type, default)
    return (field.name, field.type)


def _check_window(window: Any) -> None:
    check_timestamps(window.since, window.until)


def _check_outcome(outcome: Any) -> None:
    check_timestamps(outcome.pinged_at, outcome.since, outcome.enrolled_at)
    for span in outcome.excused:
        check_timestamps(span.since, span.until)


def _check_state(state: Any) -> None:
    check_timestamps(state.next_ping_at)


StoredWindow = narrowed(
    "StoredWindow",
    Window,
    ("since", "until"),
    namespace={"__post_init__": _check_window},
)
StoredReport = narrowed(
    "StoredReport",
    UptimeReport,
    ("window", "gpus", "incidents", "simulated"),
    window=StoredWindow,
)
StoredOutcome = narrowed(
    "StoredOutcome",
    Outcome,
    (
        "ping_seq",
        "pinged_at",
        "outcome",
        "verdict",
        "reason",
        "uptime_percent",
        "seconds",
        "window_seconds",
        "response_ms",
        "late_ms",
        "since",
        "gpus",
        "remarks",
        "excused",
        "enrolled_at",
        "refused_report",
        "report",
    ),
    namespace={"__post_init__": _check_outcome},
    ping_seq=PingSeq,
    response_ms=(Latency | None, None),
    late_ms=(Latency | None, None),
    report=(StoredReport | None, None),
)
# The agent's id is compared with the subject, whose id has been checked. So any text will do here.
StoredState = narrowed(
    "StoredState",
    AgentState,
    ("consecutive_poor", "agent_id", "interval_seconds", "next_ping_at", "last"),
    namespace={"__post_init__": _check_state},
    agent_id=str,
    last=StoredOutcome,
)
