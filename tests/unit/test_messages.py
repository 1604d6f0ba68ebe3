"""What every message on the bus has in common, whoever sends it."""

import json
from datetime import UTC, datetime

from bus import agent_answers, messages, questions, statements, transfer
from bus.messages import Message, PingRequest, Span, decode, encode
from bus.transfer import PieceRequest

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def kinds_of(kind: type[Message]) -> set[type[Message]]:
    return {kind}.union(*(kinds_of(one) for one in kind.__subclasses__()))


def test_every_message_is_encoded_with_its_schema_version():
    modules = {one.__name__ for one in (agent_answers, messages, questions, statements, transfer)}
    kinds = {kind for kind in kinds_of(Message) if kind.__module__ in modules}
    assert {PingRequest, PieceRequest} <= kinds
    left_out = {kind.__name__ for kind in kinds if kind.__struct_config__.omit_defaults}
    assert left_out == set(), "a default that is left out takes schema_version with it"


def test_a_ping_tells_its_schema_version():
    """Agents of another hand read it, and the contract promises it of every message."""
    sent = json.loads(encode(PingRequest(ping_id="a-1", seq=1, excused=(Span(since=NOW, until=NOW),))))
    assert sent["schema_version"] == 1
    assert set(sent) == {
        "schema_version", "ping_id", "seq", "since_mark", "window_seconds", "excused", "nonce",
    }  # fmt: skip


def test_a_ping_without_optional_fields_is_understood():
    assert decode(b'{"ping_id": "a-1"}', PingRequest) == PingRequest(ping_id="a-1")
    assert decode(b'{"since_mark": null, "excused": [], "more": 1}', PingRequest) == PingRequest()
