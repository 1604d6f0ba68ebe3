"""Where reading begins: never behind anything that is not in the file yet."""

from datetime import UTC, datetime, timedelta

import pytest

from storage.engine.rows import microseconds
from storage.ingest.position import Position
from storage.stream.resume import REWIND, Start, StreamState, choose_start

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
HELD = Position(stream_us=7, sequence=100, fingerprint="same")


def begun(
    stream: StreamState, newest: datetime | None = None, held: Position | None = HELD
) -> Start:
    return choose_start(held, stream, 0 if newest is None else microseconds(newest), NOW)


def test_it_goes_on_behind_the_position():
    start = begun(StreamState(7, 1, "same"))
    assert start == Start({"deliver_policy": "by_start_sequence", "opt_start_seq": 101}, "resumed")


@pytest.mark.parametrize(("held", "created"), [(None, 7), (HELD, 8)])
def test_a_stream_that_is_not_known_is_read_whole(held: Position | None, created: int):
    assert begun(StreamState(created, 1, "same"), NOW, held) == Start(
        {"deliver_policy": "all"}, "ingest_started_from_beginning"
    )


def test_what_expired_unread_is_counted():
    start = begun(StreamState(7, 150, None))
    assert (start.consumer, start.unread) == ({"deliver_policy": "all"}, 49)
    assert start.reason == "unread_outcomes_expired"
    assert begun(StreamState(7, 101, None)) == Start({"deliver_policy": "all"}, "resumed")


@pytest.mark.parametrize("away", [timedelta(minutes=1), timedelta(hours=5), timedelta(hours=23)])
@pytest.mark.parametrize("there", ["another", None])
def test_a_stream_numbered_anew_is_read_from_before_the_newest_outcome(
    away: timedelta, there: str | None
):
    start = begun(StreamState(7, 1, there), NOW - away)
    assert start.reason == "stream_renumbered"
    assert datetime.fromisoformat(start.consumer["opt_start_time"]) == NOW - away - REWIND


@pytest.mark.parametrize(
    "known", [timedelta(0), timedelta(hours=6), timedelta(hours=11, minutes=59)]
)
def test_of_a_day_that_may_be_archived_no_more_than_the_day_is_relied_on(known: timedelta):
    start = begun(StreamState(7, 1, None), NOW - timedelta(days=90) + known)
    assert (
        datetime.fromisoformat(start.consumer["opt_start_time"])
        == datetime(2026, 8, 27, tzinfo=UTC) - REWIND
    )


def test_a_scheduler_whose_clock_is_a_little_ahead_shortens_nothing():
    start = begun(StreamState(7, 1, None), NOW + timedelta(minutes=5))
    assert datetime.fromisoformat(start.consumer["opt_start_time"]) == NOW - REWIND


@pytest.mark.parametrize("newest", [None, NOW + timedelta(days=400)])
def test_where_the_newest_outcome_tells_nothing_all_is_read(newest: datetime | None):
    assert begun(StreamState(7, 1, None), newest).consumer == {"deliver_policy": "all"}
