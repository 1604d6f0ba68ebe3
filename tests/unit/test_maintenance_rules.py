"""The rules of booked maintenance: ahead of time, within the budget, counted once."""

from datetime import UTC, datetime, timedelta

import pytest

from bus.contract.messages import AgentEntry, MaintenanceWindow
from bus.errors import RefusedError
from scheduler.fleet.rules.maintenance import (
    MAX_KEPT,
    Limits,
    booked,
    bookings,
    cancelled,
    check_times,
    has_label,
)

NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
NO_LIMITS = Limits(notice=timedelta(), monthly=None)


def entry(*windows: MaintenanceWindow, agent_id: str = "a", **metadata: object) -> AgentEntry:
    return AgentEntry(
        agent_id=agent_id,
        registered_at=NOW - 24 * HOUR,
        enrolled_at=NOW - 24 * HOUR,
        maintenance=windows,
        metadata=metadata,
    )


def window(begin: float, end: float, booking_id: str = "b1") -> MaintenanceWindow:
    """A booking from `begin` to `end`, in hours from now."""
    return MaintenanceWindow(
        since=NOW + begin * HOUR,
        until=NOW + end * HOUR,
        booking_id=booking_id,
        reason="fans",
        author="ada",
        booked_at=NOW,
    )


def test_it_is_booked_ahead_and_never_backwards():
    check_times(NOW, NOW + HOUR, NOW, NO_LIMITS)
    with pytest.raises(RefusedError, match="ahead of time"):
        check_times(NOW - timedelta(milliseconds=1), NOW + HOUR, NOW, NO_LIMITS)
    with pytest.raises(RefusedError, match="ends before"):
        check_times(NOW + HOUR, NOW + HOUR, NOW, NO_LIMITS)


def test_a_notice_period_is_kept():
    limits = Limits(notice=timedelta(minutes=30), monthly=None)
    check_times(NOW + timedelta(minutes=30), NOW + HOUR, NOW, limits)
    with pytest.raises(RefusedError, match="30 minutes ahead"):
        check_times(NOW + timedelta(minutes=29), NOW + HOUR, NOW, limits)


def test_the_monthly_budget_counts_overlaps_once():
    limits = Limits(notice=timedelta(), monthly=4 * HOUR)
    once = booked(entry(), window(1, 4), NOW, limits)
    twice = booked(once, window(2, 5, "b2"), NOW, limits)
    assert len(twice.maintenance) == 2
    with pytest.raises(RefusedError, match="would have 5 hours of maintenance in 2026-11"):
        booked(twice, window(5, 6, "b3"), NOW, limits)


def test_a_booking_over_a_month_s_edge_counts_in_each_month():
    limits = Limits(notice=timedelta(), monthly=4 * HOUR)
    to_the_edge = (datetime(2026, 12, 1, tzinfo=UTC) - NOW) / HOUR
    booked(entry(), window(to_the_edge - 4, to_the_edge + 4), NOW, limits)
    with pytest.raises(RefusedError, match="in 2026-12; its budget is 4"):
        booked(entry(), window(to_the_edge - 1, to_the_edge + 4.5), NOW, limits)


def test_a_month_with_a_full_budget_does_not_hinder_the_next():
    limits = Limits(notice=timedelta(), monthly=4 * HOUR)
    full = booked(entry(), window(0, 4), NOW, limits)
    booked(full, window(24 * 10, 24 * 10 + 4, "b2"), NOW, limits)


def test_cancelled_midway_it_ends_now_and_what_passed_stays_excused():
    going_on = entry(window(-1, 2, "b1"), window(5, 6, "b2"))
    left = cancelled(going_on, "b1", NOW).maintenance
    assert [(one.since, one.until) for one in left] == [
        (NOW - HOUR, NOW),
        (NOW + 5 * HOUR, NOW + 6 * HOUR),
    ]
    assert [one.booking_id for one in cancelled(going_on, "b2", NOW).maintenance] == ["b1"]


def test_a_booking_that_is_over_cannot_be_changed_any_more():
    over = entry(window(-3, -1))
    assert cancelled(over, "b1", NOW) == over


def test_a_group_is_one_booking():
    first = entry(window(1, 2), agent_id="b")
    second = entry(window(1, 2), window(-2, -1, "b0"), agent_id="a")
    (found,) = bookings([first, second], NOW, past_too=False)
    assert (found.booking_id, found.agent_ids, found.reason) == ("b1", ("a", "b"), "fans")
    assert [one.booking_id for one in bookings([second], NOW, past_too=True)] == ["b0", "b1"]


def test_the_oldest_that_are_over_are_forgotten_and_none_that_is_to_come():
    over = [window(-1000 + n, -999 + n, f"old{n}") for n in range(MAX_KEPT)]
    kept = booked(entry(*over), window(1, 2), NOW, NO_LIMITS).maintenance
    assert len(kept) == MAX_KEPT
    assert kept[0].booking_id == "old1"
    ahead = [window(n + 1, n + 2, f"new{n}") for n in range(MAX_KEPT)]
    with pytest.raises(RefusedError, match="at most 200 bookings ahead"):
        booked(entry(*ahead), window(1, 2), NOW, NO_LIMITS)


def test_what_is_over_is_kept_while_the_window_that_it_is_in_is_open():
    """The next ping still has to excuse it, however many bookings are ahead."""
    ahead = [window(n + 1, n + 2, f"new{n}") for n in range(MAX_KEPT - 2)]
    earlier = [window(-30, -29, "recorded"), window(-3, -2, "open")]
    asked = booked(entry(*earlier, *ahead), window(1, 2), NOW, NO_LIMITS, open_since=NOW - 4 * HOUR)
    ids = [one.booking_id for one in asked.maintenance]
    assert ids[:1] == ["open"]
    assert len(ids) == MAX_KEPT
    full = asked
    with pytest.raises(RefusedError, match="the open window"):
        booked(full, window(5, 6), NOW, NO_LIMITS, open_since=NOW - 4 * HOUR)


def test_what_a_budget_was_spent_on_in_this_month_is_not_forgotten():
    """NOW is the 26th; otherwise 200 short bookings would make room for any number of others."""
    limits = Limits(notice=timedelta(), monthly=150 * HOUR)
    spent = [window(-300 + n, -299.5 + n, f"spent{n}") for n in range(MAX_KEPT)]
    with pytest.raises(RefusedError, match="at most 200"):
        booked(entry(*spent), window(1, 2), NOW, limits)
    assert len(booked(entry(*spent), window(1, 2), NOW, NO_LIMITS).maintenance) == MAX_KEPT


def test_labels_are_fields_of_the_metadata():
    assert has_label(entry(site="FRA"), "site=FRA")
    assert has_label(entry(rack=7), "rack=7")
    assert not has_label(entry(site="FRA"), "site=AMS")
    assert not has_label(entry(), "site=FRA")
