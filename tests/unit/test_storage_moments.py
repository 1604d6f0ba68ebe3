"""Moments of many texts at once: those that msgspec reads, and no others."""

from datetime import UTC, datetime

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.moments import FORM, moments
from storage.rows import microseconds

times = st.datetimes(timezones=st.just(UTC))
odd_digits = st.builds(
    lambda place, letter: FORM[:place] + letter + FORM[place + 1 :],
    st.integers(0, len(FORM) - 1),
    st.characters(codec="utf-8", exclude_categories=["Cc"]),
)


def text_of(moment: datetime) -> str:
    return msgspec.json.decode(msgspec.json.encode(moment), type=str)


@given(st.lists(times, max_size=8))
def test_what_messages_write_is_read_exactly(several: list[datetime]):
    found = moments([text_of(moment) for moment in several])
    for moment, one in zip(several, found, strict=True):
        if moment.microsecond:
            assert one.astype(np.int64) == microseconds(moment)
        else:
            assert np.isnat(one)  # the long road reads it


@given(st.lists(st.one_of(odd_digits, st.text(max_size=30), times.map(text_of)), max_size=8))
def test_nothing_is_read_that_the_long_road_would_not(texts: list[str]):
    for text, one in zip(texts, moments(texts), strict=True):
        if not np.isnat(one):
            moment = msgspec.json.decode(msgspec.json.encode(text.rstrip("\0")), type=datetime)
            assert one.astype(np.int64) == microseconds(moment)


@pytest.mark.parametrize(
    "text",
    [
        "2026-13-01T00:00:00.000000Z",
        "2026-02-29T00:00:00.000000Z",
        "0000-01-01T00:00:00.000000Z",
        "2026-11-01T24:00:00.000000Z",
        "2026-11-01T00:00:60.000000Z",
        "+026-11-01T00:00:00.000000Z",
        "2026-11-01 00:00:00.000000Z",
        "2026-11-01T00:00:00.000000+00:00",
        "2026-11-01T00:00:00.0000000Z",
        "2026-11-01T00:00:00Z",
        "NaT",
        "now",
        "",
        "\uff12026-11-01T00:00:00.000000Z",
    ],
)
def test_one_that_is_none_hides_no_other(text: str):
    found = moments([FORM, text, FORM])
    assert np.isnat(found).tolist() == [False, True, False]


def test_no_text_gives_no_moment():
    assert len(moments([])) == 0
