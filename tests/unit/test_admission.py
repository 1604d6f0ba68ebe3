"""Admission: what a report may say about a window that the scheduler measured.

Single reports first, then lies told for a month, then any numbers at all.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from bus.contract.durations import Durations, Interval
from bus.contract.expected_gpus import ALWAYS, FOR_EVER
from bus.contract.remarks import GPUS_CONTRADICT_HOST
from scheduler.ping.accounting.admission import (
    Admitted,
    MeasuredWindow,
    Refused,
    ReportedTime,
    admit,
    share_out,
)

NO_ROW = Interval(0, 0)
HOUR = 3_600_000
QUARTER = 900_000
TEN_YEARS = 87_600 * HOUR


def measured(
    length: int = QUARTER,
    *,
    answer: int = 50,
    previous_answer: int = 50,
    elapsed: int | None = -1,
    excused: tuple[Interval, ...] = (),
    expected: dict[str, tuple[Interval, ...]] | None = None,
    unheard: int = 0,
    unheard_row: Interval = NO_ROW,
    stood_still: int = 0,
) -> MeasuredWindow:
    """A window from 0 to `length`, measured by one boot's clock unless `elapsed` says otherwise."""
    return MeasuredWindow(
        since=0,
        until=length,
        answer=answer,
        previous_answer=previous_answer,
        elapsed=length if elapsed == -1 else elapsed,
        excused=excused,
        expected={"A": ALWAYS} if expected is None else expected,
        unheard=unheard,
        unheard_row=unheard_row,
        stood_still=stood_still,
    )


def said(host: Durations, percent: float | None = -1.0, **gpus: Durations) -> ReportedTime:
    """A report whose percent fits its seconds; its one GPU is as the host unless they are named."""
    rows = gpus or {"A": host}
    return ReportedTime(
        host=host,
        gpus=rows,
        states=dict.fromkeys(rows, "up"),
        uptime_percent=host.uptime_percent if percent == -1.0 else percent,
    )


def admitted(window: MeasuredWindow, report: ReportedTime) -> Admitted:
    result = admit(window, report)
    assert isinstance(result, Admitted), result
    return result


def test_an_honest_report_is_taken_as_it_is():
    host = Durations(up=QUARTER - 60_000, degraded=10_000, down=50_000)
    assert admitted(measured(), said(host)) == Admitted(host, {"A": host})


def test_ten_years_of_up_in_one_second_are_refused():
    result = admit(measured(1_000), said(Durations(up=TEN_YEARS)))
    assert result == Refused("more_time_than_passed")


def test_a_percent_that_its_own_seconds_contradict_is_refused():
    all_down = Durations(down=QUARTER)
    assert admit(measured(), said(all_down, 100.0)) == Refused("percent_contradicts_seconds")
    assert admit(measured(), said(all_down, None)) == Refused("percent_contradicts_seconds")
    assert isinstance(admit(measured(), said(all_down, 0.01)), Admitted)
    assert admit(measured(), said(all_down, 0.0101)) == Refused("percent_contradicts_seconds")


def test_what_the_host_calls_excused_is_not_excused():
    excused = Durations(excused=QUARTER)
    result = admitted(measured(), said(excused))
    assert result.host == Durations(unknown=QUARTER)
    assert result.remarks == {"time_missing"}


def test_excused_is_what_the_ping_carried_and_no_more():
    booked = (Interval(100_000, 200_000),)
    result = admitted(measured(excused=booked), said(Durations(up=800_000, excused=100_000)))
    assert result.host == Durations(up=800_000, excused=100_000)
    result = admitted(measured(excused=booked), said(Durations(up=600_000, excused=300_000)))
    assert result.host.excused == 100_000
    assert result.host.good == 600_000


def test_an_expected_gpu_that_the_report_lacks_is_down():
    up = Durations(up=QUARTER)
    window = measured(expected={"A": ALWAYS, "B": ALWAYS})
    result = admitted(window, said(up, A=up))
    assert result.gpus["B"] == Durations(down=QUARTER)
    assert result.host == Durations(down=QUARTER)
    assert "unreported" in result.remarks


def test_another_gpu_does_not_stand_in_for_an_expected_one():
    up = Durations(up=QUARTER)
    window = measured(expected={"A": ALWAYS, "B": ALWAYS})
    result = admitted(window, said(up, A=up, X=up))
    assert result.host.good == 0
    assert set(result.gpus) == {"A", "B"}


def test_a_host_is_no_better_than_its_worst_expected_gpu():
    up = Durations(up=QUARTER)
    half = Durations(up=QUARTER - 300_000, down=200_000, unknown=100_000)
    result = admitted(measured(expected={"A": ALWAYS, "B": ALWAYS}), said(up, A=up, B=half))
    assert result.host == half
    assert "gpus_contradict_host" in result.remarks


def test_a_clock_that_is_eight_hours_off_at_boot_makes_no_time():
    """900 s were 29,700 once, of which nearly all was unknown."""
    result = admitted(measured(), said(Durations(up=QUARTER - 5_000, unknown=28_800_000)))
    assert result.host == Durations(up=QUARTER - 5_000, unknown=5_000)
    assert result.remarks == {"time_cut"}


def test_a_clock_that_is_being_corrected_is_scaled_and_said():
    """NTP clients correct a clock by up to 8.3 %."""
    result = admitted(measured(), said(Durations(up=975_000)))
    assert result.host == Durations(up=QUARTER)
    assert result.remarks == {"clock_disagrees"}
    over = QUARTER + QUARTER // 10 + QUARTER // 1000 + 50 + 50
    assert isinstance(admit(measured(), said(Durations(up=over))), Admitted)
    assert admit(measured(), said(Durations(up=over + 1))) == Refused("more_time_than_passed")


def test_tolerance_is_this_answer_when_longer_and_the_previous_answer_when_shorter():
    slack = QUARTER // 1000 + 50
    window = measured(answer=3_000, previous_answer=7_000)
    for length in (QUARTER + 3_000 + slack, QUARTER - 7_000 - slack):
        assert admitted(window, said(Durations(up=length))) == Admitted(
            Durations(up=QUARTER), {"A": Durations(up=QUARTER)}
        )
    longer = admitted(window, said(Durations(up=QUARTER + 3_001 + slack)))
    assert longer.remarks == {"clock_disagrees"}
    shorter = admitted(window, said(Durations(up=QUARTER - 7_001 - slack)))
    assert shorter.host == Durations(up=QUARTER - 7_001 - slack, unknown=7_001 + slack)


def test_a_registration_may_have_travelled_before_it_was_heard():
    """The host tells its ledger's position when it asks; the enrolment begins when it is heard.

    On a busy machine that took 200 ms, and a first window of 10 ms was refused.
    """
    short = measured(10, previous_answer=0)
    report = said(Durations(up=260))
    assert admit(short, report) == Refused("more_time_than_passed")
    enrolled = replace(short, registration=3_000)
    assert admitted(enrolled, report) == Admitted(Durations(up=10), {"A": Durations(up=10)})
    assert admit(enrolled, said(Durations(up=3_200))) == Refused("more_time_than_passed")


def test_a_slow_answer_followed_by_a_wiped_disk_counts_its_delay_once():
    """A ping was answered after 9.9 s; the disk is wiped a second later, and the mark is unknown.

    The first report covers the delay, too, and the second one again, as time before its ledger.
    """
    slow = measured(answer=9_900)
    first = admitted(slow, said(Durations(up=QUARTER + 9_900)))
    after = measured(previous_answer=9_900)
    second = admitted(after, said(Durations(up=QUARTER - 10_900, unknown=10_900)))
    assert first.host == Durations(up=QUARTER)
    assert second.host == Durations(up=QUARTER - 10_900, unknown=10_900)
    assert first.host.window + second.host.window == 2 * QUARTER


def test_two_schedulers_may_be_two_seconds_apart():
    window = measured(elapsed=None)
    short_by = 50 + QUARTER // 1000 + 2_000
    result = admitted(window, said(Durations(up=QUARTER - short_by)))
    assert result.host == Durations(up=QUARTER)
    result = admitted(window, said(Durations(up=QUARTER - short_by - 1)))
    assert result.host.unknown == short_by + 1


def test_a_step_of_our_own_clock_is_excused():
    """The calendar says three hours more than passed: nobody is billed for them."""
    window = measured(QUARTER + 3 * HOUR, elapsed=QUARTER)
    result = admitted(window, said(Durations(up=QUARTER)))
    assert result.host == Durations(up=QUARTER, excused=3 * HOUR)


def test_what_a_host_does_not_know_of_a_time_in_which_we_stood_still_is_excused():
    """A machine that carries both was suspended for a minute: nobody is billed for it."""
    window = measured(stood_still=60_000)
    asleep = Durations(up=QUARTER - 60_000, unknown=60_000)
    result = admitted(window, said(asleep))
    assert result.host == Durations(up=QUARTER - 60_000, excused=60_000)
    assert result.gpus["A"] == result.host
    assert result.remarks == {"stood_still"}
    awake = Durations(up=QUARTER - 10_000, down=10_000)
    assert admitted(window, said(awake)) == Admitted(awake, {"A": awake})
    longer = Durations(up=QUARTER - 90_000, unknown=90_000)
    result = admitted(window, said(longer))
    assert result.host == Durations(up=QUARTER - 90_000, unknown=30_000, excused=60_000)


def test_a_host_is_no_better_than_a_gpu_of_which_nothing_is_known_while_we_stood_still():
    window = measured(expected={"A": ALWAYS, "B": ALWAYS}, stood_still=60_000)
    up = Durations(up=QUARTER)
    result = admitted(window, said(up, A=up, B=Durations(up=QUARTER - 60_000, unknown=60_000)))
    assert result.host.good == QUARTER - 60_000


def test_a_host_is_no_better_than_a_gpu_of_which_more_was_forgiven_before_a_silence():
    """What was forgiven of the GPU is not judged, so the silence takes more of what is."""
    window = measured(expected={"A": ALWAYS, "B": ALWAYS}, unheard=300_000, stood_still=100_000)
    host = Durations(up=QUARTER - 60_000, unknown=60_000)
    worse = Durations(up=QUARTER - 100_000, unknown=100_000)
    result = admitted(window, said(host, A=host, B=worse))
    assert result.gpus["B"] == Durations(up=500_000, unknown=300_000, excused=100_000)
    assert result.host == Durations(up=500_000, unknown=340_000, excused=60_000)


def by_server(length: int, elapsed: int) -> MeasuredWindow:
    """A window that two schedulers measured, and that the server's clock contradicts."""
    return MeasuredWindow(
        since=0, until=length, elapsed_by_server=elapsed, expected={"A": ALWAYS}, answer=50
    )


def test_a_step_of_the_servers_clock_is_held_against_no_host():
    """Nobody knows whether the server's clock was set, or that of a scheduler."""
    up = Durations(up=QUARTER)
    assert admitted(by_server(QUARTER, QUARTER + HOUR), said(up)) == Admitted(up, {"A": up})
    for behind in (QUARTER - 5_000, 0, -HOUR):
        result = admitted(by_server(QUARTER, behind), said(up))
        assert result.host.down + result.host.unknown == 0
        assert result.host.window == QUARTER


def test_a_step_back_of_the_servers_clock_that_the_calendar_follows_refuses_nobody():
    """Two schedulers follow the server, which was set back by 100 s in a window of 150 s."""
    told = said(Durations(up=150_000))
    window = MeasuredWindow(since=0, until=50_000, expected={"A": ALWAYS}, clamped=100_000)
    result = admitted(window, told)
    assert result.host == Durations(up=50_000)
    assert result.remarks == {"clock_disagrees"}
    assert admit(replace(window, clamped=0), told) == Refused("more_time_than_passed")


def test_a_step_of_our_clock_between_two_misses_is_no_silence():
    window = measured(QUARTER + 3 * HOUR, elapsed=QUARTER, unheard=3 * HOUR + 100_000)
    result = admitted(window, said(Durations(up=QUARTER)))
    assert result.host == Durations(up=QUARTER - 100_000, unknown=100_000, excused=3 * HOUR)


def test_a_calendar_that_ran_backwards_makes_an_empty_window():
    window = MeasuredWindow(since=3 * HOUR, until=3 * HOUR, elapsed=QUARTER, expected={"A": ALWAYS})
    assert admitted(window, said(Durations(up=QUARTER))).host == Durations()


def test_twenty_days_off_between_two_misses_are_not_believed():
    """A machine that was off for 20 days and then says "up" was believed for 1,728,000 s."""
    window = measured(1_728_000_000, unheard=1_700_000_000)
    result = admitted(window, said(Durations(up=1_728_000_000)))
    assert result.host == Durations(up=28_000_000, unknown=1_700_000_000)
    assert result.gpus["A"] == result.host
    assert result.remarks == {"unheard"}


def test_what_was_down_or_unknown_anyway_is_not_taken_twice_for_unheard_time():
    host = Durations(up=QUARTER - 400_000, down=300_000, unknown=100_000)
    result = admitted(measured(unheard=350_000), said(host))
    assert result.host == host
    assert result.remarks == frozenset()


def test_a_replaced_gpu_is_accounted_until_its_end_and_the_new_one_from_there():
    swap = 300_000
    expected = {"OLD": (Interval(-HOUR, swap),), "NEW": (Interval(swap, 10 * HOUR),)}
    old = Durations(up=swap, down=QUARTER - swap)
    new = Durations(up=QUARTER - swap, unknown=swap)
    host = Durations(up=QUARTER)
    result = admitted(measured(expected=expected), said(host, OLD=old, NEW=new))
    assert result.gpus["OLD"] == Durations(up=swap)
    assert result.gpus["NEW"] == Durations(up=QUARTER - swap)
    assert result.host == host


def test_what_two_gpus_lack_one_after_the_other_adds_up():
    swap = 300_000
    expected = {"OLD": (Interval(-HOUR, swap),), "NEW": (Interval(swap, 10 * HOUR),)}
    down = Durations(down=QUARTER)
    host = Durations(up=QUARTER)
    result = admitted(measured(expected=expected), said(host, OLD=down, NEW=down))
    assert result.host == Durations(down=QUARTER)
    assert GPUS_CONTRADICT_HOST in result.remarks
    result = admitted(measured(expected=expected, elapsed=1_000), said(Durations(up=1_000)))
    assert result.host.good == 0  # our clock was set, so that nobody knows when they took turns
    assert result.host.window == QUARTER


def test_a_gpu_that_is_expected_after_a_silence_loses_nothing_to_it():
    swap = 600_000
    expected = {"OLD": (Interval(-HOUR, swap),), "NEW": (Interval(swap, 10 * HOUR),)}
    up = Durations(up=QUARTER)
    window = measured(expected=expected, unheard=400_000, unheard_row=Interval(100_000, 500_000))
    result = admitted(window, said(up, OLD=up, NEW=up))
    assert result.gpus["NEW"] == Durations(up=QUARTER - swap)
    assert result.gpus["OLD"] == Durations(up=200_000, unknown=400_000)
    assert result.host == Durations(up=QUARTER - 400_000, unknown=400_000)


def test_an_empty_report_of_a_short_window_is_as_the_gpus_are_now():
    window = measured(100, previous_answer=9_000)
    down = ReportedTime(
        host=Durations(), gpus={"A": Durations()}, states={"A": "down"}, uptime_percent=None
    )
    assert admitted(window, down).host == Durations(down=100)


# ---- liars over a month: none gains over "up" to every ping ----

LIAR_WINDOW = QUARTER
LIAR_DOWN = LIAR_WINDOW * 3 // 10
LIAR_EDGE = 9_900 + LIAR_WINDOW // 1000 + 50
_UP = Durations(up=LIAR_WINDOW)


def _both(**durations: int) -> tuple[Durations, dict[str, Durations]]:
    row = Durations(**durations)
    return row, {"A": row, "B": row}


LIES = {
    "always up": _both(up=LIAR_WINDOW),
    "up for ten years": _both(up=TEN_YEARS),
    "up as long as is believed": _both(up=LIAR_WINDOW + LIAR_EDGE),
    "up, then unknown for ten years": _both(up=LIAR_WINDOW, unknown=TEN_YEARS),
    "down hidden in the tolerance": _both(up=LIAR_WINDOW - LIAR_DOWN, down=LIAR_DOWN - LIAR_EDGE),
    "a millisecond of up": _both(up=1),
    "nothing": _both(),
    "down called excused": _both(up=LIAR_WINDOW - LIAR_DOWN, excused=LIAR_DOWN),
    "all excused": _both(excused=LIAR_WINDOW),
    "the dead GPU left out": (_UP, {"A": _UP}),
    "another GPU in its place": (_UP, {"A": _UP, "X": _UP}),
    "host up over a dead GPU": (
        _UP,
        {"A": _UP, "B": Durations(up=LIAR_WINDOW - LIAR_DOWN, down=LIAR_DOWN)},
    ),
    "rows of other lengths": (_UP, {"A": _UP, "B": Durations(up=1)}),
}


@pytest.mark.parametrize("lie", LIES)
def test_no_lie_gains_a_millisecond_over_always_saying_up(lie: str):
    """A quarter of each window is booked.

    A refused report leaves its window open, as in the scheduler.
    """
    host, gpus = LIES[lie]
    report = ReportedTime(
        host=host,
        gpus=gpus,
        states=dict.fromkeys(gpus, "up"),
        uptime_percent=host.uptime_percent,
    )
    windows = 400
    earned = since = 0
    for number in range(1, windows + 1):
        until = number * LIAR_WINDOW
        booked = []
        for end in range(since + LIAR_WINDOW, until + 1, LIAR_WINDOW):
            booked.append(Interval(end - LIAR_WINDOW // 2, end - LIAR_WINDOW // 4))
        window = MeasuredWindow(
            since=since,
            until=until,
            previous_answer=9_900,
            answer=9_900,
            elapsed=until - since,
            excused=tuple(booked),
            expected={"A": ALWAYS, "B": ALWAYS},
        )
        result = admit(window, report)
        if isinstance(result, Admitted):
            earned += result.host.good
            since = until
    honest = windows * LIAR_WINDOW * 3 // 4
    assert earned <= honest


# ---- any numbers at all ----

times = st.one_of(
    st.integers(0, 20), st.integers(0, 2_000_000), st.integers(0, 2**40), st.just(QUARTER)
)
rows = st.builds(Durations, times, times, times, times, times)


@settings(max_examples=500)
@given(
    length=times,
    elapsed=st.one_of(st.none(), times),
    answer=st.integers(0, 10_000),
    previous_answer=st.integers(0, 10_000),
    booked=st.tuples(times, times),
    unheard=times,
    stood_still=times,
    host=rows,
    gpus=st.dictionaries(st.sampled_from("ABCD"), rows),
    swapped_at=st.one_of(st.none(), times),
)
def test_every_row_is_exact_and_no_host_is_better_than_its_gpus(  # noqa: PLR0917  # drawn one by one
    length, elapsed, answer, previous_answer, booked, unheard, stood_still, host, gpus, swapped_at
):
    expected = {"A": ALWAYS, "B": ALWAYS}
    if swapped_at is not None:
        expected["C"] = (Interval(swapped_at, FOR_EVER.end),)
    excused = Interval(min(booked), max(booked))
    window = measured(
        length,
        elapsed=elapsed,
        answer=answer,
        previous_answer=previous_answer,
        excused=(excused,),
        expected=expected,
        unheard=unheard,
        stood_still=stood_still,
    )
    report = ReportedTime(host=host, gpus=gpus, states={}, uptime_percent=host.uptime_percent)
    result = admit(window, report)
    if isinstance(result, Refused):
        return
    whole = [result.host, result.gpus["A"], result.gpus["B"]]
    for row in whole:
        assert row.window == length
    for row in (*whole, *result.gpus.values()):
        assert min(row.up, row.degraded, row.down, row.unknown, row.excused) >= 0
    for row in (result.gpus["A"], result.gpus["B"]):
        assert result.host.good <= row.good
    if elapsed is not None:
        assert result.host.good <= max(0, elapsed) + 2_000


@settings(max_examples=500)
@given(
    length=times,
    elapsed=st.one_of(st.none(), times),
    booked=st.tuples(times, times),
    unheard=times,
    host=rows.filter(lambda row: row.good + row.down > 0),
    uuids=st.sets(st.sampled_from("ABC")),
)
def test_the_common_path_and_the_general_one_admit_the_same(
    length, elapsed, booked, unheard, host, uuids
):
    """A GPU that is expected for ever, but not by the constant for it, takes the general path."""
    excused = (Interval(min(booked), max(booked)),)
    report = said(host, **dict.fromkeys(uuids, host))
    results = []
    for expected in (ALWAYS, (Interval(FOR_EVER.begin - 1, FOR_EVER.end),)):
        window = measured(
            length,
            elapsed=elapsed,
            excused=excused,
            expected=dict.fromkeys(uuids, expected),
            unheard=unheard,
        )
        results.append(admit(window, report))
    assert results[0] == results[1]


@given(
    parts=st.tuples(times, times, times, times).filter(any),
    length=times,
)
def test_a_row_that_was_up_all_the_time_is_shared_out_as_any_other(parts, length):
    """`fit` does not compute it."""
    up = sum(parts)
    assert share_out((up, 0, 0, 0), length) == [length, 0, 0, 0]


@given(
    parts=st.tuples(times, times, times, times).filter(any),
    length=times,
)
def test_shares_add_up_exactly(parts, length):
    shares = share_out(parts, length)
    assert sum(shares) == length
    assert min(shares) >= 0
