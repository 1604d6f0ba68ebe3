"""Signed reports on the wire: what is changed, replayed or another's is refused with a reason."""

from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import fields, replace

from bus.contract.messages import PingRequest, Seconds, UptimeReport, Window, encode
from bus.identity.keys import KeyKind, SigningKey
from bus.identity.signatures import GENESIS
from bus.identity.signed_report import (
    BadSignatureError,
    Checked,
    Expected,
    ReportSignature,
    ReportSigner,
    check,
    parse,
    verify,
)

FLEET = "A" * 56
KEY = SigningKey.generate(KeyKind.USER)
NOW = datetime(2026, 11, 26, tzinfo=UTC)


class Host:
    """Answers pings, and signs what it answers."""

    def __init__(self, agent_id: str = "a-1", key: SigningKey = KEY, fleet: str = FLEET) -> None:
        self.agent_id = agent_id
        self.key = key
        self.signer = ReportSigner(fleet, key)

    def answer(self, request: PingRequest) -> tuple[str, UptimeReport, bytes]:
        """The header, the report and its bytes."""
        window = Window(since=NOW, until=NOW, seconds=0.0, mark="ledger.7")
        report = UptimeReport(
            agent_id=self.agent_id,
            boot_id="boot",
            session_id="session",
            window=window,
            uptime_percent=None,
            seconds=Seconds(),
            gpu_available=True,
            reported_at=NOW,
            ping_id=request.ping_id,
            nonce=request.nonce,
        )
        payload = encode(report)
        return self.signer.sign(request, encode(request), report, payload), report, payload


def ping(seq: int = 1, previous: str | None = None) -> PingRequest:
    return PingRequest(ping_id=f"p-{seq}", seq=seq, nonce=f"n-{seq}", previous=previous)


def expected(request: PingRequest, **changes: object) -> Expected:
    fixed = Expected(
        fleet=FLEET,
        key=KEY.public,
        seq=request.seq or 0,
        previous=request.previous or GENESIS,
        request=encode(request),
    )
    return replace(fixed, **changes)


def reason(header: str, wanted: Expected, report: UptimeReport, payload: bytes) -> str:
    with pytest.raises(BadSignatureError) as refused:
        check(header, wanted, report, payload)
    return refused.value.reason


def test_an_honest_answer_is_believed_and_continues_the_chain() -> None:
    previous = None
    for seq in (1, 2, 3):
        request = ping(seq, previous)
        checked = check(*_in_order(Host().answer(request), expected(request)))
        assert isinstance(checked, Checked)
        assert checked.signature.previous == (previous or GENESIS)
        previous = checked.record_hash


def _in_order(
    answer: tuple[str, UptimeReport, bytes], wanted: Expected
) -> tuple[str, Expected, UptimeReport, bytes]:
    header, report, payload = answer
    return header, wanted, report, payload


def test_what_belongs_elsewhere_is_refused_with_its_reason() -> None:
    request = ping(2, "f" * 64)
    wanted = expected(request)
    honest, report, payload = Host().answer(request)
    other_key = Host(key=SigningKey.generate(KeyKind.USER))
    assert reason(other_key.answer(request)[0], wanted, report, payload) == "key_wrong"
    assert reason(Host(fleet="B" * 56).answer(request)[0], wanted, report, payload) == "fleet_wrong"
    old, old_report, old_payload = Host().answer(ping(1))
    assert reason(old, wanted, old_report, old_payload) == "request_wrong"
    sibling = expected(request, previous="0" * 64)
    assert reason(honest, sibling, report, payload) == "previous_wrong"
    elsewhere = Host(agent_id="a-2").answer(request)
    assert reason(elsewhere[0], wanted, report, payload) == "signature_wrong"
    assert reason("", wanted, report, payload) == "signature_unreadable"
    assert reason(honest.replace('"v":1', '"v":2'), wanted, report, payload) == (
        "signature_unreadable"
    )


@given(st.data())
def test_no_byte_of_the_report_can_be_changed(data: st.DataObject) -> None:
    request = ping()
    header, report, payload = Host().answer(request)
    place = data.draw(st.integers(0, len(payload) - 1))
    bit = data.draw(st.integers(0, 7))
    changed = bytearray(payload)
    changed[place] ^= 1 << bit
    assert reason(header, expected(request), report, bytes(changed)) == "signature_wrong"


@given(st.sampled_from(fields(ReportSignature)), st.text(min_size=1, max_size=80))
def test_no_field_of_the_signature_can_be_changed(field, text: str) -> None:
    header, report, payload = Host().answer(ping())
    found = parse(header)
    value = len(text) + 1 if field.type is int else text
    changed = replace(found, **{field.name: value})
    if field.name == "v":
        with pytest.raises(BadSignatureError):
            parse(changed.to_header())
        return
    if changed == found:
        return
    with pytest.raises(BadSignatureError):
        verify(parse(changed.to_header()), report, payload)


@given(st.text(max_size=200))
def test_nothing_that_is_sent_as_a_signature_harms_the_scheduler(text: str) -> None:
    request = ping()
    _, report, payload = Host().answer(request)
    assert reason(text, expected(request), report, payload) == "signature_unreadable"


def test_the_header_is_one_line_of_json() -> None:
    header, _, _ = Host().answer(ping())
    assert "\n" not in header
    assert msgspec.json.decode(header)["v"] == 1
