"""What becomes of an old agent's one figure: a report of seconds within the window."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.contract.durations import Durations
from bus.contract.messages import ExcusedSpan, PingRequest
from bus.errors import BadMessageError
from gateway.bridge.reports import HttpUptime, UncountedAnswers, decode_uptime, excused_ms

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)


def seconds(answers: UncountedAnswers, uptime: HttpUptime, mark: str = "m1", **asked) -> Durations:
    request = PingRequest(ping_id="p", nonce="n", **asked)
    report = answers.report("a", request, uptime, NOW, mark)
    durations = Durations.from_seconds(report.seconds)
    assert durations.window == round(report.window.seconds * 1000)
    assert report.uptime_percent == durations.uptime_percent
    assert (report.ping_id, report.nonce, report.window.mark) == ("p", "n", mark)
    return durations


def test_an_agent_that_does_not_say_since_when_is_believed_for_the_window():
    found = seconds(UncountedAnswers(), HttpUptime(75.0, True), window_seconds=100.0)
    assert found == Durations(up=75_000, down=25_000)


def test_what_the_agent_did_not_see_is_left_to_admission():
    found = seconds(UncountedAnswers(), HttpUptime(50.0, True, 40_000), window_seconds=100.0)
    assert found == Durations(up=20_000, down=20_000)


def test_an_agent_that_speaks_of_more_than_the_window_is_believed_for_the_window():
    found = seconds(UncountedAnswers(), HttpUptime(50.0, True, 900_000), window_seconds=100.0)
    assert found == Durations(up=50_000, down=50_000)


def test_an_answer_that_the_scheduler_did_not_count_is_counted_with_the_next_one():
    answers = UncountedAnswers()
    seconds(answers, HttpUptime(100.0, True, 10_000), "m1", window_seconds=10.0)
    seconds(answers, HttpUptime(100.0, True, 50_000), "m2", since_mark="m1", window_seconds=50.0)
    found = seconds(
        answers, HttpUptime(0.0, True, 60_000), "m3", since_mark="m1", window_seconds=110.0
    )
    assert found == Durations(up=50_000, down=60_000)
    found = seconds(
        answers, HttpUptime(100.0, True, 5_000), "m4", since_mark="m3", window_seconds=5.0
    )
    assert found == Durations(up=5_000)


def test_after_an_answer_that_is_not_known_here_only_the_present_one_counts():
    answers = UncountedAnswers()
    seconds(answers, HttpUptime(100.0, True, 100_000), "m1", since_mark="a", window_seconds=100.0)
    found = seconds(
        answers, HttpUptime(0.0, True, 60_000), "m2", since_mark="of-another", window_seconds=160.0
    )
    assert found == Durations(down=60_000)


def test_what_another_gateway_asked_is_not_counted_here():
    answers = UncountedAnswers()
    seconds(answers, HttpUptime(100.0, True, 10_000), "m1", window_seconds=10.0)
    seconds(answers, HttpUptime(100.0, True, 50_000), "m2", since_mark="m1", window_seconds=50.0)
    answers.forget()
    found = seconds(
        answers, HttpUptime(100.0, True, 60_000), "m3", since_mark="m1", window_seconds=110.0
    )
    assert found == Durations(up=60_000)


def test_maintenance_is_taken_from_the_time_that_was_down():
    span = ExcusedSpan(since_seconds_ago=60.0, until_seconds_ago=30.0)
    found = seconds(
        UncountedAnswers(), HttpUptime(60.0, True), window_seconds=100.0, excused=(span,)
    )
    assert found == Durations(up=60_000, down=10_000, excused=30_000)
    whole = ExcusedSpan(since_seconds_ago=600.0, until_seconds_ago=-30.0)
    found = seconds(
        UncountedAnswers(), HttpUptime(60.0, True), window_seconds=100.0, excused=(whole,)
    )
    assert found == Durations(excused=100_000)


SPANS = st.lists(
    st.tuples(st.floats(-50, 200), st.floats(0, 100)).map(
        lambda pair: ExcusedSpan(since_seconds_ago=pair[0] + pair[1], until_seconds_ago=pair[0])
    ),
    max_size=4,
).map(tuple)


@given(
    windows=st.lists(st.floats(0, 500), min_size=1, max_size=5),
    percent=st.floats(0, 100),
    covered=st.none() | st.integers(0, 10**6),
    excused=SPANS,
)
def test_the_seconds_never_exceed_the_window_and_are_never_below_zero(
    windows, percent, covered, excused
):
    answers = UncountedAnswers()
    for number, window in enumerate(windows):
        found = seconds(
            answers,
            HttpUptime(percent, True, covered),
            f"m{number}",
            since_mark="m0",
            window_seconds=window,
            excused=excused,
        )
        assert min(found.up, found.down, found.unknown, found.excused) >= 0
        length = round(window * 1000)
        assert found.window <= length
        assert found.excused <= excused_ms(excused, length)
        if covered is None:
            assert found.window == length


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"uptime_percent": 99.5, "gpu_available": True}, HttpUptime(99.5, True)),
        ({"uptime_percentage": 0, "gpu_exists": False}, HttpUptime(0.0, False)),
        ({"uptime": 12.5}, HttpUptime(12.5, True)),
        ({"uptime_percent": 0}, HttpUptime(0.0, False)),
        ({"gpu_available": False}, HttpUptime(0.0, False)),
        ({"uptime_percent": 100, "seconds_since_last_ping": 9.5}, HttpUptime(100.0, True, 9_500)),
        ({"uptime_percent": 100, "window": {"seconds": 60}}, HttpUptime(100.0, True, 60_000)),
        ({"uptime_percent": 100, "gpus": [], "more": {"x": 1}}, HttpUptime(100.0, True)),
    ],
)
def test_an_answer_is_read_by_the_names_that_agents_use(answer, expected):
    assert decode_uptime(json.dumps(answer).encode()) == expected


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"null", b"[]", b'"99.5"', b"<html>", b"{", b"\xff\xfe", b"[" * 5000),
        *(b"{}", b'{"uptime_percent": "99"}', b'{"uptime_percent": true}', b'{"gpu_available": 1}'),
        *(b'{"uptime_percent": 100.1}', b'{"uptime_percent": -1}', b'{"uptime_percent": 1e999}'),
        b'{"uptime_percent": 9, "window_seconds": -1}',
        b'{"uptime_percent": 9, "window_seconds": 1e300}',
        b'{"uptime_percent": NaN}',
    ],
)
def test_anything_else_is_no_answer(data):
    with pytest.raises(BadMessageError):
        decode_uptime(data)
