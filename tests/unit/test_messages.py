"""What all messages on the bus have in common, whoever sends them."""

import ast
import json
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from msgspec import NODEFAULT, Struct

from agentd.scenario import ScenarioEvent
from bus.contract import agent_answers, messages, questions, statements
from bus.contract.exports import TableRequest
from bus.contract.messages import (
    AgentEntry,
    AgentState,
    AnsweredPing,
    Enrolment,
    ExcusedSpan,
    GpuChange,
    Incident,
    LateAnswer,
    MaintenanceWindow,
    Message,
    Outcome,
    PingRequest,
    Silence,
    Timer,
    Timestamp,
    UptimeReport,
    Window,
    decode,
    encode,
)
from bus.errors import BadMessageError
from bus.identity.tokens import Token
from bus.settings import Settings
from bus.transport import file_transfer
from bus.transport.file_transfer import PieceRequest
from scheduler.ping.pinger import read_report

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def kinds_of(kind: type[Message]) -> set[type[Message]]:
    return {kind}.union(*(kinds_of(one) for one in kind.__subclasses__()))


def test_every_message_is_encoded_with_its_schema_version():
    modules = {
        one.__name__ for one in (agent_answers, messages, questions, statements, file_transfer)
    }
    kinds = {kind for kind in kinds_of(Message) if kind.__module__ in modules}
    assert {PingRequest, PieceRequest} <= kinds
    for kind in kinds:
        version = next(f for f in msgspec.structs.fields(kind) if f.name == "schema_version")
        is_omitted = kind.__struct_config__.omit_defaults and version.default is not NODEFAULT
        assert not is_omitted, f"{kind.__name__}: its schema_version goes with the other defaults"


def test_a_state_leaves_out_what_is_as_usual_and_comes_back_equal():
    state = AgentState(
        agent_id="a", ping_seq=1, interval_seconds=900.0, next_ping_at=NOW, last=OUTCOME
    )
    written = json.loads(encode(state))
    assert set(written) == {
        "schema_version", "answered", "consecutive_poor", "good_streak", "recovering",
        "last_judged", "last_outcome", "uptime_percent", "agent_id", "ping_seq",
        "interval_seconds", "next_ping_at", "last", "missed",
    }  # fmt: skip
    assert set(written["last"]) == {"ping_id", "ping_seq", "pinged_at", "outcome", "verdict"}
    assert decode(encode(state), AgentState) == state


def test_a_ping_tells_its_schema_version():
    """Agents by other authors read the version, and docs/api.md promises it of every message."""
    sent = json.loads(
        encode(PingRequest(ping_id="a-1", seq=1, excused=(ExcusedSpan(since=NOW, until=NOW),)))
    )
    assert sent["schema_version"] == 1
    assert set(sent) == {
        "schema_version", "ping_id", "seq", "since_mark", "window_seconds", "excused", "nonce",
        "timeout_seconds", "expected_gpus", "expected_changes", "previous", "ledger_heads",
    }  # fmt: skip


def test_a_ping_without_optional_fields_is_understood():
    assert decode(b'{"ping_id": "a-1"}', PingRequest) == PingRequest(ping_id="a-1")
    assert decode(b'{"since_mark": null, "excused": [], "more": 1}', PingRequest) == PingRequest()


OUTSIDE = (
    "0001-01-01T00:00:00+14:00",
    "1969-12-31T23:59:59Z",
    "9999-01-01T00:00:00Z",
    "9999-12-31T23:59:59-14:00",
)
WINDOW = Window(since=NOW, until=NOW, seconds=0.0)
OUTCOME = Outcome(ping_id="p", ping_seq=1, pinged_at=NOW, outcome="missed", verdict="poor")
DATED = [
    WINDOW,
    OUTCOME,
    Incident(state="down", reason="lost", since=NOW, until=NOW),
    UptimeReport(
        agent_id="a", window=WINDOW, uptime_percent=None, gpu_available=True, reported_at=NOW
    ),
    AgentEntry(agent_id="a", registered_at=NOW, enrolled_at=NOW, removed_at=NOW),
    AgentState(
        agent_id="a",
        ping_seq=1,
        interval_seconds=1.0,
        next_ping_at=NOW,
        last_answered_at=NOW,
        last=OUTCOME,
    ),
    Timer(seq=1, due_at=NOW),
    MaintenanceWindow(since=NOW, until=NOW, booked_at=NOW),
    GpuChange(uuid="GPU-a", expected=True, since=NOW, author="ada", at=NOW),
    AnsweredPing(boot_id="boot", boottime=1.0, bus_time=NOW),
    Silence(first=NOW, last=NOW, misses=1),
    LateAnswer(ping_id="p", heard_at=NOW),
    Enrolment(NOW, NOW),
]


def moments_of(kind: type[Struct]) -> list[str]:
    """The fields of type Timestamp, optional ones included."""
    kinds = msgspec.structs.fields(kind)
    return [one.encode_name for one in kinds if one.type in {Timestamp, Timestamp | None}]


def test_no_moment_is_outside_what_utc_can_say():
    """A bad timestamp that is stored would break every answer that contains it."""
    kinds = [
        one for one in vars(messages).values() if isinstance(one, type) and issubclass(one, Struct)
    ]
    assert {kind for kind in kinds if moments_of(kind)} == {type(one) for one in DATED}
    for one in DATED:
        assert decode(encode(one), type(one)) == one
        for name in moments_of(type(one)):
            for text in OUTSIDE:
                odd = json.dumps(json.loads(encode(one)) | {name: text}).encode()
                with pytest.raises(BadMessageError, match="1970 to 9998"):
                    decode(odd, type(one))


@pytest.mark.parametrize("text", OUTSIDE)
def test_a_report_with_such_a_moment_is_a_bad_report(text: str):
    lost = Incident(state="down", reason="lost", since=NOW)
    fine = UptimeReport(
        agent_id="a", window=WINDOW, uptime_percent=None, gpu_available=True, incidents=(lost,)
    )
    said = json.loads(encode(fine))
    said["incidents"][0]["since"] = text
    read_report(encode(fine))
    with pytest.raises(BadMessageError, match="1970 to 9998"):
        read_report(json.dumps(said).encode())


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (UptimeReport, json.loads(encode(DATED[3]))),
        (AgentState, json.loads(encode(DATED[5]))),
        (TableRequest, {"table": "history", "agent_id": "a"}),
    ],
)
def test_an_id_ends_where_it_ends(kind: type[Message], said: dict[str, object]):
    """`$` alone matches before a final newline too; the id would then differ from itself."""
    decode(json.dumps(said).encode(), kind)
    for odd in ("a\n", "\na", "a\n\n", "a\r"):
        with pytest.raises(BadMessageError, match="agent_id"):
            decode(json.dumps(said | {"agent_id": odd}).encode(), kind)


@pytest.mark.parametrize(
    ("kind", "said", "field"),
    [
        (Token, {"name": "ops", "role": "viewer", "sha256": "0" * 64}, "name"),
        (Token, {"name": "ops", "role": "viewer", "sha256": "0" * 64}, "sha256"),
        (ScenarioEvent, {"at": 1.0, "gpu": 0, "state": "xid:79"}, "state"),
        (Settings, {"AGENT_ID": "a"}, "AGENT_ID"),
        (Settings, {"STORAGE_NAME": "a"}, "STORAGE_NAME"),
    ],
)
def test_so_do_names_in_files_and_settings(kind: type[Struct], said: dict[str, object], field: str):
    msgspec.convert(said, kind)
    with pytest.raises(msgspec.ValidationError, match=field):
        msgspec.convert(said | {field: f"{said[field]}\n"}, kind)


def test_every_pattern_of_the_product_ends_there() -> None:
    """`$` alone lets a final newline pass, which no subject and no key can hold."""
    root = Path(__file__).parents[2]
    wrong = []
    for package in ("bus", "scheduler", "agentd", "storage", "gateway", "gpuping"):
        for path in sorted((root / package).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            if '$"' not in text or "pattern" not in text.lower():
                continue
            for node in ast.walk(ast.parse(text)):
                is_argument = isinstance(node, ast.keyword) and node.arg == "pattern"
                is_named = isinstance(node, ast.Assign) and "PATTERN" in ast.unparse(node.targets)
                pattern = getattr(node, "value", None) if is_argument or is_named else None
                if isinstance(pattern, ast.Constant) and str(pattern.value).endswith("$"):
                    wrong.append(f"{path.relative_to(root)}:{pattern.lineno}")
    assert not wrong
