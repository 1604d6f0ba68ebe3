"""The offline verifier: an honest record passes, and whatever is changed in it is found."""

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from bus.contract.messages import Seconds, encode
from bus.identity.keys import KeyKind, SigningKey
from bus.identity.signed_report import parse, verify
from bus.identity.verification import RecordedReport, Trusted, Verification
from tests.unit.test_signed_reports import FLEET, KEY, Host, ping

OF_FLEET = Trusted(FLEET)


def recorded(first: int = 1, last: int = 6, host: Host | None = None) -> list[RecordedReport]:
    """A chain as a scheduler records it."""
    host = host or Host()
    previous = None
    found = []
    for seq in range(first, last + 1):
        header, report, payload = host.answer(ping(seq, previous))
        previous = verify(parse(header), report, payload).record_hash
        found.append(RecordedReport(seq, header, payload))
    return found


def problems(reports: list[RecordedReport], trusted: Trusted = OF_FLEET) -> list[str]:
    verification = Verification(trusted)
    verification.add_all(reports)
    return [problem.text for problem in verification.problems]


def test_an_honest_record_has_no_problem() -> None:
    verification = Verification(Trusted(FLEET, {"a-1": KEY.public}))
    verification.add_all(recorded())
    assert verification.problems == []
    (summary,) = verification.summaries
    assert (summary.agent_id, summary.reports) == ("a-1", 6)
    assert (summary.first_seq, summary.last_seq, summary.keys) == (1, 6, (KEY.public,))


def test_a_record_may_begin_anywhere_and_a_new_key_begins_a_new_chain() -> None:
    assert problems(recorded()[3:]) == []
    new_host = Host(key=SigningKey.generate(KeyKind.USER))
    assert problems([*recorded(), *recorded(7, 9, new_host)]) == []


def test_a_report_that_was_refused_is_followed_by_another_after_the_same_one() -> None:
    honest = recorded(1, 2)
    base = parse(honest[1].signature)
    sibling_header, _, sibling = Host().answer(ping(3, base.previous))
    refused = RecordedReport(3, sibling_header, sibling)
    assert problems([honest[0], refused, RecordedReport(2, *honest[1][1:])][:2]) == []


@given(st.integers(1, 4))
def test_a_report_that_is_left_out_is_noticed(place: int) -> None:
    honest = recorded()
    del honest[place]
    found = problems(honest)
    assert len(found) == 1
    assert "does not follow" in found[0]


@given(st.data())
def test_a_byte_that_is_changed_is_noticed(data: st.DataObject) -> None:
    honest = recorded(1, 3)
    place = data.draw(st.integers(0, 2))
    payload = bytearray(honest[place].payload)
    at = data.draw(st.integers(0, len(payload) - 1))
    payload[at] ^= 1 << data.draw(st.integers(0, 7))
    honest[place] = honest[place]._replace(payload=bytes(payload))
    assert problems(honest)


def test_another_number_fleet_key_or_sum_is_noticed() -> None:
    honest = recorded(1, 1)
    assert problems([honest[0]._replace(ping_seq=2)]) == ["it is signed as ping 1"]
    assert "for the fleet" in problems(honest, Trusted("B" * 56))[0]
    assert "not with" in problems(honest, Trusted(FLEET, {"a-1": "U" * 56}))[0]
    request = ping()
    _, report, _ = Host().answer(request)
    wrong = replace(report, seconds=Seconds(up=5.0))
    payload = encode(wrong)
    header = Host().signer.sign(request, encode(request), wrong, payload)
    assert "add up to 5.000" in problems([RecordedReport(1, header, payload)])[0]


def test_a_report_without_a_signature_proves_nothing_and_breaks_nothing() -> None:
    honest = recorded()
    honest.insert(2, RecordedReport(3, "", b"garbage"))
    assert problems(honest) == []
