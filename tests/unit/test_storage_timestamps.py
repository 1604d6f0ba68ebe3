"""Moments of many texts at once: those that msgspec reads, and no others."""

from datetime import UTC, datetime, timedelta, timezone

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.contract.messages import Timestamp, check_timestamps
from storage.engine.rows import microseconds
from storage.ingest.timestamps import FORM, timestamps

times = st.datetimes(
    timezones=st.just(UTC),
    min_value=datetime(1970, 1, 1),  # noqa: DTZ001  # Hypothesis adds the zone
    max_value=datetime(9998, 12, 31),  # noqa: DTZ001
)
any_times = st.datetimes(
    timezones=st.integers(-1439, 1439).map(lambda m: timezone(timedelta(minutes=m)))
)
odd_digits = st.builds(
    lambda place, letter: FORM[:place] + letter + FORM[place + 1 :],
    st.integers(0, len(FORM) - 1),
    st.characters(codec="utf-8", exclude_categories=["Cc"]),
)


def text_of(moment: datetime) -> str:
    return msgspec.json.decode(msgspec.json.encode(moment), type=str)


@given(st.lists(times, max_size=8))
def test_what_messages_write_is_read_exactly(several: list[datetime]):
    found = timestamps([text_of(moment) for moment in several])
    assert found.astype(np.int64).tolist() == [microseconds(moment) for moment in several]


@given(
    st.lists(
        st.one_of(odd_digits, st.text(max_size=30), any_times.map(text_of), any_times.map(str)),
        max_size=8,
    )
)
def test_each_is_read_as_the_slow_path_reads_it(texts: list[str]):
    for text, one in zip(texts, timestamps(texts), strict=True):
        try:
            expected = msgspec.convert(
                text.removesuffix("\0"), Timestamp
            )  # one NUL at its end is overlooked
            check_timestamps(expected)
        except ValueError:
            assert np.isnat(one)
        else:
            assert one.astype(np.int64) == microseconds(expected)


@pytest.mark.parametrize(
    "text",
    [
        "2026-13-01T00:00:00.000000Z",
        "2026-02-29T00:00:00.000000Z",
        "0000-01-01T00:00:00.000000Z",
        "2026-11-01T24:00:00.000000Z",
        "2026-11-01T00:00:60.000000Z",
        "+026-11-01T00:00:00.000000Z",
        "1969-12-31T23:59:59.999999Z",
        "9999-01-01T00:00:00.000000Z",
        "0001-01-01T00:00:00+14:00",  # a moment to msgspec, and none that UTC can say
        "9999-12-31T23:59:59-14:00",
        "2026-11-01T00:00:00.000000",  # nobody knows when that was
        FORM + "\0",
        FORM + "\0 whatever",
        "NaT",
        "now",
        "",
        "\uff12026-11-01T00:00:00.000000Z",
    ],
)
def test_one_that_is_none_hides_no_other(text: str):
    found = timestamps([FORM, text, FORM])
    assert np.isnat(found).tolist() == [False, True, False]


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-01T00:00:00Z",
        "2026-11-01T00:00:00.000Z",
        "2026-11-01T02:00:00.0+02:00",
        "2026-11-01 00:00:00Z",
    ],
)
def test_other_ways_to_write_a_moment_are_read_one_by_one(text: str):
    first, second, third = timestamps([FORM, text, FORM])
    assert first == second == third


def test_no_text_gives_no_moment():
    assert len(timestamps([])) == 0
