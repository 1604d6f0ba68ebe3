"""The window that the scheduler measures: by which clock, and how much of it was silent."""

from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from bus.contract.durations import Durations
from bus.contract.messages import (
    AgentEntry,
    AgentState,
    AnsweredPing,
    GpuChange,
    MaintenanceWindow,
    Outcome,
    Seconds,
    Silence,
    decode,
    encode,
)
from scheduler.fleet.tracked import Tracked
from scheduler.ping.accounting.admission import Admitted, MeasuredWindow
from scheduler.ping.accounting.window import admit_report, measured_window, window_start
from scheduler.ping.attempt import PingAttempt
from scheduler.ping.next_state import next_state
from scheduler.policy import Excused, Missed, PingResult
from tests.agents import PingRequest, report
from tests.unit.host_lives import POLICY, make_pinger

ENROLLED = datetime(2026, 11, 1, tzinfo=UTC)
FIRST = ENROLLED + timedelta(minutes=1)
QUARTER = timedelta(minutes=15)


def after(seconds: float) -> datetime:
    return FIRST + timedelta(seconds=seconds)


def clocks(boot_id: str, seconds: float, server_seconds: float | None = None) -> AnsweredPing:
    """A ping sent so long after the first one, by the scheduler's clocks and the server's."""
    bus_time = after(seconds if server_seconds is None else server_seconds)
    return AnsweredPing(boot_id=boot_id, boottime=1_000.0 + seconds, bus_time=bus_time)


def tracked(silence: Silence | None = None, *, is_answered: bool = True) -> Tracked:
    """An agent that was enrolled a minute before its first answered ping."""
    known = Tracked()
    known.entry = AgentEntry(
        agent_id="a",
        registered_at=ENROLLED,
        enrolled_at=ENROLLED,
        expected_gpus=("GPU-a-0",),
        enrolled_clocks=clocks("boot", -60.0),
    )
    if is_answered:
        last = Outcome(
            ping_id="p-1", ping_seq=1, pinged_at=FIRST, outcome="answered", verdict="first"
        )
        known.state = AgentState(
            agent_id="a",
            ping_seq=1,
            interval_seconds=900.0,
            next_ping_at=FIRST + QUARTER,
            last=last,
            last_answered_at=FIRST,
            answered_ping=clocks("boot", 0.0),
            silence=silence,
        )
    return known


def window_of(
    agent: Tracked, sent: AnsweredPing, pinged_at: datetime, *, believes_unheard: bool = False
) -> MeasuredWindow:
    told = report("a", PingRequest(ping_id="p", window_seconds=900.0))
    start = window_start(agent)
    return measured_window(
        agent, start, told, sent, pinged_at, (), believes_unheard=believes_unheard
    )


def test_within_one_boot_boottime_says_how_much_passed():
    three_hours_ahead = FIRST + QUARTER + timedelta(hours=3)
    window = window_of(tracked(), clocks("boot", 900.0), three_hours_ahead)
    assert (window.elapsed, window.elapsed_by_server) == (900_000, None)
    assert window.until - window.since == 11_700_000


@pytest.mark.parametrize(
    ("excused_before", "stood_still"), [(None, 3_000), (0.0, 3_000), (3.0, 0), (2.0, 1_000)]
)
def test_a_standstill_before_the_last_answer_arrived_is_excused_once(excused_before, stood_still):
    """The answer was sent before we stood still for 3 s, or after that: its report does not say."""
    agent = tracked()
    assert agent.state
    last = agent.state.last
    if excused_before is not None:
        last = replace(last, seconds=Seconds(up=60.0, excused=excused_before))
    late = replace(clocks("boot", 0.0), answer_ms=3_100.0)
    agent.state = replace(agent.state, last=last, answered_ping=late)
    told = report("a", PingRequest(ping_id="p", window_seconds=900.0))
    window = measured_window(
        agent,
        window_start(agent),
        told,
        clocks("boot", 900.0),
        FIRST + QUARTER,
        (),
        believes_unheard=False,
        stood_still=lambda began, ended: max(0.0, min(ended, 1_003.05) - max(began, 1_000.05)),
    )
    assert window.stood_still == stood_still


@pytest.mark.parametrize(
    ("server_seconds", "elapsed_by_server"),
    [(900.0, None), (902.0, None), (898.0, None), (902.001, 902_001), (897.999, 897_999)],
)
def test_of_two_boots_the_server_decides_only_beyond_two_seconds(server_seconds, elapsed_by_server):
    sent = clocks("another boot", 900.0, server_seconds)
    window = window_of(tracked(), sent, FIRST + QUARTER)
    assert (window.elapsed, window.elapsed_by_server) == (None, elapsed_by_server)


def test_a_step_after_the_enrolment_is_told_too():
    """The first window had no clock to compare with: three hours were billed as unknown."""
    pinged_at = ENROLLED + timedelta(hours=3, seconds=2)
    window = window_of(tracked(is_answered=False), clocks("boot", -58.0), pinged_at)
    assert window.elapsed == 2_000
    assert window.until - window.since == 10_802_000


def test_a_calendar_that_ran_backwards_makes_no_negative_window():
    window = window_of(tracked(), clocks("boot", 900.0), FIRST - timedelta(hours=3))
    assert window.until == window.since
    assert window.elapsed == 900_000


def test_silence_is_the_time_between_the_first_and_the_last_billed_miss():
    twenty_days = 20 * 86_400
    silence = Silence(first=after(900), last=after(900 + twenty_days), misses=22)
    agent = tracked(silence)
    pinged_at = after(1_800 + twenty_days)
    sent = clocks("boot", 1_800.0 + twenty_days)
    assert window_of(agent, sent, pinged_at).unheard == 1_728_000_000
    assert window_of(agent, sent, pinged_at, believes_unheard=True).unheard == 0


def test_the_silence_of_an_earlier_enrolment_is_not_held_against_the_next():
    """The host died, was removed, mended, and registered again ten days later."""
    agent = tracked(Silence(first=after(900), last=after(90_000), misses=9))
    assert agent.entry
    assert agent.state
    agent.state = replace(agent.state, answered=5)
    enrolled_at = after(864_000)
    agent.entry = replace(agent.entry, enrolled_at=enrolled_at, enrolled_clocks=None)
    pinged_at = enrolled_at + QUARTER
    sent = clocks("boot", 864_900.0)
    assert window_of(agent, sent, pinged_at).unheard == 0
    for misses in (1, 2):
        attempt = PingAttempt("a", agent, f"p-{misses}", None)
        attempt.start(pinged_at, "nonce", sent, 10.0)
        agent.state = next_state(attempt, Missed("timeout"), pinged_at, POLICY)
        assert agent.state.silence
        assert agent.state.silence.misses == misses
        pinged_at += QUARTER
    assert window_of(agent, sent, pinged_at).unheard == 900_000


def test_a_mark_that_was_refused_in_an_earlier_enrolment_is_not_held_against_the_next():
    """The next enrolment begins at a mark that the host brought; its first ping asks with it."""
    agent = tracked()
    assert agent.entry
    assert agent.state
    agent.state = replace(agent.state, mark_refused=True)
    start = window_start(agent)
    assert start
    assert start.mark is None
    enrolled_at = after(864_000)
    agent.entry = replace(agent.entry, enrolled_at=enrolled_at, enrolled_clocks=None, mark="new")
    start = window_start(agent)
    assert start
    assert (start.mark, start.at_enrolment) == ("new", True)
    pinged_at = enrolled_at + QUARTER
    for refused, mark in ((None, "new"), (b"{}", None), (None, None)):
        attempt = PingAttempt("a", agent, f"p-{pinged_at}", None)
        attempt.start(pinged_at, "nonce", clocks("boot", 864_900.0), 10.0)
        attempt.refused_report = refused
        agent.state = next_state(attempt, Missed("timeout"), pinged_at, POLICY)
        start = window_start(agent)
        assert start
        assert start.mark == mark
        pinged_at += QUARTER


@pytest.mark.parametrize("is_interrupted", [False, True])
def test_maintenance_between_two_misses_is_not_unheard_as_well(is_interrupted: bool):
    """Pings at 10:00, 14:00 and 15:00, maintenance from 10:05 to 13:55."""
    hour = 3_600.0
    agent = tracked()
    assert agent.entry
    assert agent.state
    booked = MaintenanceWindow(since=after(hour + 300), until=after(5 * hour - 300))
    agent.entry = replace(agent.entry, maintenance=(booked,))
    agent.state = replace(agent.state, answered=5)
    results: list[tuple[float, PingResult]] = [(1, Missed("timeout")), (5, Missed("timeout"))]
    if is_interrupted:
        results.append((5.5, Excused("bus_outage")))
    for at, result in results:
        attempt = PingAttempt("a", agent, f"p-{at}", None)
        attempt.start(after(at * hour), "nonce", clocks("boot", at * hour), 10.0)
        agent.state = next_state(attempt, result, after(at * hour), POLICY)
    attempt = PingAttempt("a", agent, "p-6", None)
    attempt.start(after(6 * hour), "nonce", clocks("boot", 6 * hour), 10.0)
    told = report("a", decode(attempt.request, PingRequest))
    window = measured_window(
        agent,
        attempt.window_start,
        told,
        attempt.sent,
        after(6 * hour),
        attempt.excused,
        believes_unheard=False,
    )
    assert window.unheard == 600_000


def test_one_billed_miss_is_no_silence():
    agent = tracked(Silence(first=after(900), last=after(900), misses=1))
    assert window_of(agent, clocks("boot", 1_800.0), after(1_800)).unheard == 0


def test_an_answer_that_comes_after_another_registration_is_of_the_enrolment_that_was_asked():
    """The agent is removed and registered again while its ping waits for the answer."""
    agent = tracked()
    attempt = PingAttempt("a", agent, "p-2", None)
    attempt.start(FIRST + QUARTER, "nonce", clocks("boot", 900.0), 10.0)
    assert agent.entry
    agent.entry = replace(agent.entry, enrolled_at=FIRST + QUARTER + timedelta(seconds=3))
    told = report("a", decode(attempt.request, PingRequest))
    attempt.response_ms = 5_000.0
    result = make_pinger(believes_unheard=False)._result_of(attempt, encode(told))
    assert result
    last = next_state(attempt, result, FIRST + QUARTER, POLICY).last
    assert last.seconds
    assert (last.since, last.window_seconds, last.seconds.up) == (FIRST, 900.0, 900.0)
    assert last.enrolled_at == ENROLLED


def test_a_ping_in_the_millisecond_of_the_enrolment_ends_its_window_on_a_whole_one():
    """Also where its clock is behind. Otherwise windows of one host overlap by microseconds."""
    agent = tracked(is_answered=False)
    assert agent.entry
    enrolled_at = ENROLLED + timedelta(microseconds=1_700)
    agent.entry = replace(agent.entry, enrolled_at=enrolled_at)
    attempt = PingAttempt("a", agent, "p", None)
    attempt.start(ENROLLED, "nonce", clocks("boot", -60.0), 10.0)
    assert attempt.pinged_at == ENROLLED + timedelta(milliseconds=2)


# ---- the expected GPUs ---------------------------------------------------------------------------

OWN, TWIN = "GPU-a-0", "GPU-twin"


def changed(minutes: float, uuid: str, *, expected: bool) -> GpuChange:
    at = after(60 * minutes)
    return GpuChange(uuid=uuid, expected=expected, since=at, author="ada", at=at)


GONE_FOR_6_MINUTES = (changed(3, OWN, expected=False), changed(9, OWN, expected=True))
THERE_AND_BACK = (  # OWN is exchanged for TWIN after 3 minutes, and TWIN for OWN after 9
    changed(3, OWN, expected=False),
    changed(3, TWIN, expected=True),
    changed(9, TWIN, expected=False),
    changed(9, OWN, expected=True),
)
OFTEN = (
    *GONE_FOR_6_MINUTES,
    changed(10, OWN, expected=False),
    changed(12, OWN, expected=True),
    changed(14, OWN, expected=False),
)


def admitted_with(changes: tuple[GpuChange, ...], *present: str) -> Admitted:
    """A quarter of an hour in which all the host's GPUs were up, and others were not there."""
    agent = tracked()
    assert agent.entry
    now = after(900)
    expected = {OWN}
    for change in changes:
        (expected.add if change.expected else expected.discard)(change.uuid)
    agent.entry = replace(agent.entry, expected_gpus=tuple(expected), gpu_changes=changes)
    told = report("a", PingRequest(ping_id="p", window_seconds=900.0))
    gpus = tuple(replace(told.gpus[0], uuid=uuid) for uuid in present)
    told = replace(told, gpus=gpus)
    start = window_start(agent)
    window = measured_window(
        agent, start, told, clocks("boot", 900.0), now, (), believes_unheard=False
    )
    result = admit_report(window, told)
    assert isinstance(result, Admitted)
    return result


@pytest.mark.parametrize(
    ("changes", "minutes"),
    [
        (GONE_FOR_6_MINUTES, {OWN: 9}),
        (THERE_AND_BACK, {OWN: 9, TWIN: 6}),
        (OFTEN, {OWN: 3 + 1 + 2}),
        ((changed(-60, OWN, expected=False), changed(-30, OWN, expected=True)), {OWN: 15}),
        ((changed(-60, OWN, expected=False), changed(5, OWN, expected=True)), {OWN: 10}),
        ((changed(3, OWN, expected=False), changed(3, OWN, expected=True)), {OWN: 15}),
    ],
)
def test_a_gpu_is_accounted_for_each_time_that_it_was_expected_in_a_window(changes, minutes):
    """Present, it was up as long as it was expected; absent, it was down as long."""
    row_lengths = {uuid: 60_000 * length for uuid, length in minutes.items()}
    there = admitted_with(changes, OWN, TWIN)
    assert there.gpus == {uuid: Durations(up=length) for uuid, length in row_lengths.items()}
    away = admitted_with(changes, "GPU-other")
    assert away.gpus == {uuid: Durations(down=length) for uuid, length in row_lengths.items()}
    assert away.host.good == 900_000 - sum(row_lengths.values())  # they took turns
