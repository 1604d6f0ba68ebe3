"""The offline verifier: an honest record passes, and whatever is changed in it is found."""

import copy
import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace as replace_struct

from bus.contract.durations import Durations, Interval
from bus.contract.expected_gpus import ALWAYS, FOR_EVER
from bus.contract.messages import AgentState, Seconds, UptimeReport, decode
from bus.identity.keys import KeyKind, SigningKey
from bus.identity.signed_report import BadSignatureError, parse, verify
from gpuping.verification.records import Recorded, Times, Trusted
from gpuping.verification.verifier import Verifier
from gpuping.verification.windows import check_row, times_of
from scheduler.ping.accounting.admission import (
    MeasuredWindow,
    Refused,
    ReportedTime,
    admit,
)
from storage.engine.rows import Arrival
from tests.signed_history import FLEET, KEY, SignedHost, month

OF_FLEET = Trusted(FLEET, {"a-1": KEY.public})


def outcome(arrival: Arrival) -> Recorded:
    """What the scheduler recorded, read from its own message."""
    last = json.loads(arrival.data)["last"]
    state = decode(arrival.data, AgentState)
    pinged_us = round(state.last.pinged_at.timestamp() * 1_000_000)
    assert state.last.since
    raw = bytes(state.last.report)
    report = None if raw in {b"", b"null"} else raw
    if state.last.refused_report is not None:
        report = state.last.refused_report.encode()
    return Recorded(
        agent_id=arrival.agent_id,
        ping_seq=state.ping_seq,
        pinged_us=pinged_us,
        outcome=state.last.outcome,
        verdict=state.last.verdict,
        uptime_percent=None if state.last.verdict == "first" else state.last.uptime_percent,
        since_us=round(state.last.since.timestamp() * 1_000_000),
        times=times_of(last.get("seconds")),
        response_ms=state.last.response_ms or 0.0,
        remarks=state.last.remarks,
        report=report,
        signature=arrival.signature or "",
    )


def recorded(host: SignedHost | None = None) -> list[Recorded]:
    return [outcome(arrival) for arrival in (host or month()).arrivals]


def honest(pings: int = 6) -> list[Recorded]:
    host = SignedHost()
    for _ in range(pings):
        host.answer()
    return recorded(host)


def faults(outcomes: list[Recorded], trusted: Trusted = OF_FLEET) -> list[str]:
    verifier = Verifier(trusted)
    verifier.add_all(outcomes)
    return [finding.text for finding in verifier.faults]


def test_an_honest_record_has_no_fault_and_says_what_should_be_known() -> None:
    verifier = Verifier(OF_FLEET)
    verifier.add_all(recorded())
    assert verifier.faults == []
    assert [finding.text for finding in verifier.findings] == [
        "it was refused, for its ledger is broken"
    ]
    assert verifier.findings[0].ping_seq == 8
    (summary,) = verifier.summaries
    assert (summary.agent_id, summary.outcomes, summary.signed) == ("a-1", 16, 14)
    assert (summary.first_seq, summary.last_seq, summary.keys) == (1, 16, (KEY.public,))


def test_a_record_may_begin_anywhere_and_a_new_key_begins_a_new_chain() -> None:
    assert faults(recorded()[3:]) == []
    new = SignedHost(key=SigningKey.generate(KeyKind.USER))
    first = SignedHost()
    first.answer()
    new.number, new.at, new.since = first.number, first.at, first.since
    new.answer()
    assert faults([*recorded(first), *recorded(new)], Trusted(FLEET)) == []


@settings(deadline=None)
@given(st.integers(1, 4))
def test_a_report_that_is_left_out_is_noticed(place: int) -> None:
    found = honest()
    del found[place]
    (text,) = faults(found)
    assert "does not follow ping" in text


def lives_of_a_restored_bus(*remarks: str) -> list[Recorded]:
    """Four pings, a backup after the second of them, and three more on the bus made of it."""
    host = SignedHost()
    for _ in range(2):
        host.answer()
    saved = copy.copy(host)
    for _ in range(2):
        host.answer()
    saved.arrivals = [*host.arrivals]
    saved.answer(remarks=remarks)
    for _ in range(2):
        saved.answer()
    return recorded(saved)


def test_the_break_of_a_restored_bus_is_ours_and_no_other_is() -> None:
    verifier = Verifier(OF_FLEET)
    verifier.add_all(lives_of_a_restored_bus("restored"))
    assert verifier.faults == []
    about_it, *others = verifier.findings
    assert about_it.ping_seq == 3
    assert about_it.text.startswith("ours: the bus was restored from a backup")
    assert [finding.text for finding in others] == [
        "its number comes after ping 4: numbering began anew"
    ]
    (text,) = faults(lives_of_a_restored_bus())
    assert "is not continued" in text


def test_reports_that_change_places_or_are_there_twice_are_noticed() -> None:
    found = honest()
    assert faults([found[0], found[2], found[1], *found[3:]])
    twice = faults([*found[:3], *found[2:]])
    assert "its number is there twice" in twice


@settings(deadline=None)
@given(st.data())
def test_a_byte_that_is_changed_is_noticed(data: st.DataObject) -> None:
    found = honest(3)
    place = data.draw(st.integers(0, 2))
    payload = bytearray(found[place].report or b"")
    at = data.draw(st.integers(0, len(payload) - 1))
    payload[at] ^= 1 << data.draw(st.integers(0, 7))
    found[place] = replace(found[place], report=bytes(payload))
    assert faults(found)


@settings(deadline=None)
@given(st.data())
def test_a_character_of_a_signature_that_is_changed_is_noticed(data: st.DataObject) -> None:
    found = honest(2)
    header = found[1].signature
    at = data.draw(st.integers(0, len(header) - 1))
    other = data.draw(st.characters(exclude_characters=header[at], codec="ascii"))
    found[1] = replace(found[1], signature=header[:at] + other + header[at + 1 :])
    assert faults(found)


def test_a_refused_report_is_no_link_of_the_chain() -> None:
    host = SignedHost()
    host.answer()
    host.refused("broken")
    host.answer()
    assert faults(recorded(host)) == []
    counted = [replace(one, outcome="answered") for one in recorded(host)]
    said = faults(counted)
    assert any("does not contain what was reported before (broken)" in text for text in said)


def found_of(extends: str) -> list[bool]:
    """What is found where the second report says this of its ledger: whether each is a fault."""
    host = SignedHost()
    host.answer()
    host.extends = extends
    host.answer()
    verifier = Verifier(OF_FLEET)
    verifier.add_all(recorded(host))
    return [finding.is_fault for finding in verifier.findings]


def test_a_ledger_that_went_elsewhere_is_noticed_and_a_declared_one_is_said() -> None:
    assert found_of("1edce4." + "0" * 64) == [True]
    assert found_of("broken") == [True]
    assert found_of("forgotten") == [False]
    # A new ledger has a new name; this one claims to be new under its old one.
    assert found_of("new-ledger") == [True]


def test_a_signature_has_one_text_only() -> None:
    """Base64 has unused bits at the end: changed ones must not pass for the same signature."""
    found = honest(1)
    header = found[0].signature
    end = header.index('=="')
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    other = letters[letters.index(header[end - 1]) + 1]
    changed = header[: end - 1] + other + header[end:]
    assert faults([replace(found[0], signature=changed)])
    payload = found[0].report or b""
    with pytest.raises(BadSignatureError):
        verify(parse(changed), decode(payload, UptimeReport), payload)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"ping_seq": 7}, "it is signed as ping 6"),
        ({"agent_id": "a-2"}, "it is signed by agent a-1"),
        ({"times": Times(10_800_000, 0, 0, 1, 0)}, "its row adds up to 10800.001 s"),
        ({"since_us": 0, "times": Times(10_800_000, 0, 0, 0, 0)}, "its window has"),
        ({"uptime_percent": 99.0}, "its row says 99.000 %, its seconds 100.000 %"),
        (
            {"times": Times(0, 0, 10_800_000, 0, 0)},
            "its row has 0.000 s up, its report",
        ),
        ({"signature": ""}, "it counts, and it is not signed"),
        ({"times": None}, "nothing is accounted for"),
        ({"since_us": None}, "its window is not there"),
        ({"response_ms": 1e12}, "no fleet waits so long"),
        ({"gpus": {"G": Times(0, 0, 10_800_000, 0, 0)}}, "more uptime than its GPU G"),
    ],
)
def test_a_row_that_was_changed_is_noticed(change: dict[str, object], text: str) -> None:
    found = honest()
    found[5] = replace(found[5], **change)  # type: ignore[arg-type]
    assert any(text in said for said in faults(found)), faults(found)


def test_uptime_that_was_added_is_noticed_whatever_the_remarks_say() -> None:
    host = SignedHost()
    host.answer()
    found = recorded(month())
    place = next(i for i, one in enumerate(found) if one.times and one.times.down)
    times = found[place].times
    assert times
    made_up = times._replace(up=times.up + times.down, down=0)
    found[place] = replace(found[place], times=made_up, uptime_percent=None, remarks=("unheard",))
    assert any("of uptime, its report" in text for text in faults(found))


def test_a_gpu_has_no_more_than_it_reported() -> None:
    host = SignedHost()
    for _ in range(5):
        host.answer()
    host.answer(Seconds(up=5_400.0, down=5_400.0))
    found = recorded(host)
    report = json.loads(found[5].report or b"")
    uuid = report["gpus"][0]["uuid"]
    honest_row = Times(5_400_000, 0, 5_400_000, 0, 0)
    better = Times(5_500_000, 0, 5_300_000, 0, 0)
    found[5] = replace(found[5], gpus={uuid: honest_row, "GPU-lost": Times(0, 0, 10_800_000, 0, 0)})
    assert faults(found) == ["its host has more uptime than its GPU GPU-lost"]
    found[5] = replace(found[5], gpus={uuid: better})
    assert faults(found) == [f"GPU {uuid} has 5500.000 s of uptime, its report 5400.000 s"]
    found[5] = replace(found[5], gpus={"GPU-new": better})
    assert faults(found) == ["GPU GPU-new has 5500.000 s of uptime, and is not in its report"]


def test_a_report_is_stretched_in_proportion_however_long_answers_are_said_to_take() -> None:
    """Nobody signed how long an answer took: a fleet that says 20 minutes gains nothing by it."""
    host = SignedHost()
    host.answer()
    host.answer(Seconds(up=5_400.0, down=5_400.0))
    found = recorded(host)
    row = Times(6_400_000, 0, 4_400_000, 0, 0)
    found[1] = replace(found[1], times=row, uptime_percent=None, response_ms=1_200_000.0)
    assert faults(found) == ["its row has 6400.000 s of uptime, its report 5400.000 s"]


def test_downtime_that_was_excused_without_the_host_is_noticed() -> None:
    host = SignedHost()
    host.answer()
    host.answer(Seconds(up=5_400.0, down=5_400.0))
    found = recorded(host)
    row = Times(5_400_000, 0, 0, 0, 5_400_000)
    for remarks in ((), ("unheard",), ("gpus_contradict_host",)):
        found[1] = replace(found[1], times=row, uptime_percent=None, remarks=remarks)
        assert "its row has 5400.000 s excused, its report 0.000 s" in faults(found), remarks


def test_the_first_signatures_of_a_record_cannot_be_taken_away() -> None:
    found = honest()
    for place in range(2):
        found[place] = replace(found[place], signature="", report=None)
    assert faults(found) == [
        "it continues a signed report, and the outcome before it is not signed"
    ]


def test_a_missed_ping_that_was_taken_out_is_said() -> None:
    found = [one for one in recorded() if one.outcome != "missed"]
    verifier = Verifier(OF_FLEET)
    verifier.add_all(found)
    said = [(finding.ping_seq, finding.text) for finding in verifier.findings]
    assert (7, "before it ping 6 is not in the file") in said


states = st.sampled_from(("up", "degraded", "down", "unknown"))
milliseconds = st.one_of(st.just(0), st.integers(0, 2_000), st.integers(0, 1_000_000))


@st.composite
def filled(draw: st.DrawFn, length: int) -> Durations:
    """A row of this length, divided anywhere."""
    edges = sorted(draw(st.lists(st.integers(0, length), min_size=3, max_size=3)))
    parts = [end - begin for begin, end in pairwise([0, *edges, length])]
    return Durations(*parts)


@given(st.data())
def test_what_a_scheduler_admits_has_no_fault(data: st.DataObject) -> None:
    """Whatever happened to the clocks of the fleet: set forward, set back, another boot's."""
    length = data.draw(milliseconds)
    elapsed = data.draw(st.one_of(st.none(), st.just(length), milliseconds))
    passed = length if elapsed is None else elapsed
    answer = data.draw(st.integers(0, 9_000))
    previous_answer = data.draw(st.integers(0, min(9_000, passed)))
    booked = data.draw(st.tuples(milliseconds, milliseconds))
    excused = Interval(min(booked), max(booked))
    told_ms = min(passed, excused.intersection(Interval(0, length)).length)
    left = max(0, passed + answer - previous_answer - told_ms)
    rows = []
    for _ in range(2):
        row = data.draw(filled(data.draw(st.one_of(st.just(left), st.integers(0, left)))))
        rows.append(replace_struct(row, excused=told_ms))
    host, other = rows
    gpus = data.draw(st.sampled_from(({}, {"A": host}, {"A": host, "B": other}, {"B": other})))
    window = MeasuredWindow(
        since=0,
        until=length,
        elapsed=elapsed,
        answer=answer,
        previous_answer=previous_answer,
        excused=(excused,),
        expected={"A": ALWAYS, "B": (Interval(data.draw(milliseconds), FOR_EVER.end),)},
        unheard=data.draw(milliseconds),
        stood_still=data.draw(milliseconds),
    )
    told = ReportedTime(
        host=host,
        gpus=gpus,
        states={uuid: data.draw(states) for uuid in gpus},
        uptime_percent=host.uptime_percent,
    )
    result = admit(window, told)
    if isinstance(result, Refused):
        return
    row = Recorded(
        agent_id="a-1",
        ping_seq=1,
        pinged_us=length * 1000,
        outcome="answered",
        uptime_percent=result.host.uptime_percent,
        since_us=0,
        times=as_times(result.host),
        response_ms=float(answer),
        remarks=tuple(result.remarks),
        gpus={uuid: as_times(gpu) for uuid, gpu in result.gpus.items()},
    )
    report = {
        "seconds": as_seconds(host),
        "gpus": [{"uuid": uuid, "seconds": as_seconds(gpu)} for uuid, gpu in gpus.items()],
    }
    found = check_row(row, report, float(answer + previous_answer))
    assert [text for text, is_fault in found if is_fault] == []


def test_a_report_whose_rows_differ_in_length_is_filled_as_admission_fills_it() -> None:
    row = Recorded(
        agent_id="a-1",
        ping_seq=1,
        pinged_us=60_000_000,
        outcome="answered",
        since_us=0,
        times=Times(0, 0, 0, 60_000, 0),
    )
    report = {"seconds": {}, "gpus": [{"uuid": "A", "seconds": {"unknown": 60.0}}]}
    assert list(check_row(row, report, 0.0)) == []


def as_times(row: Durations) -> Times:
    return Times(row.up, row.degraded, row.down, row.unknown, row.excused)


def as_seconds(row: Durations) -> dict[str, float]:
    return {state: value / 1000 for state, value in as_times(row)._asdict().items()}


def test_windows_that_overlap_are_noticed() -> None:
    found = honest()
    since_us = found[3].since_us
    assert since_us
    longer = Times(10_801_000, 0, 0, 0, 0)
    found[3] = replace(found[3], since_us=since_us - 1_000_000, times=longer)
    assert any("1.000 s before the last one ended" in text for text in faults(found))


def test_another_fleet_or_key_is_noticed() -> None:
    found = honest(1)
    assert "for the fleet" in faults(found, Trusted("B" * 56))[0]
    assert "not with" in faults(found, Trusted(FLEET, {"a-1": "U" * 56}))[0]


def test_it_needs_nothing_of_ours() -> None:
    """It can be copied out of the tree and audited alone; the formats are in docs/verify.md."""
    folder = Path(__file__).parents[2] / "gpuping" / "verification"
    for file in folder.glob("*.py"):
        for line in file.read_text().splitlines():
            if line.startswith(("import ", "from ")) and "gpuping" in line:
                assert "gpuping.verification" in line, f"{file.name}: {line}"
