"""Each case of docs/design/uptime-ledger.md that others got wrong, by its name.

Times are true milliseconds.
"""

import random

import pytest
from host_lives import POLICY
from ledger_world import HALF, INTERVAL, LONGEST_GAP, World, milliseconds
from msgspec.structs import astuple

from agentd.ledger import reports
from agentd.ledger.ledger import ClockReading
from agentd.ledger.store import LedgerStore
from agentd.samples import Sample
from bus import settings
from bus.contract.messages import ExcusedSpan, ExpectedChange, PingRequest, Standing
from scheduler.ping.accounting.admission import Admitted, MeasuredWindow
from scheduler.ping.accounting.window import admit_report
from scheduler.policy import Answered, advance

MINUTE = 60_000
HOUR = 60 * MINUTE


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    world.start()
    return world


def ping(number: int, since: str | None = None) -> PingRequest:
    return PingRequest(ping_id=f"ping-{number}", since_mark=since)


def reasons(report) -> set[tuple[str | None, str, str]]:
    return {(incident.gpu, incident.state, incident.reason) for incident in report.incidents}


def test_agent_restart(world):
    world.pass_time(MINUTE + 2_000)
    mark = world.ask(ping(1)).window.mark
    world.stop()
    world.pass_time(20_000)
    world.start()
    world.pass_time(30_000)
    report = world.ask(ping(2, mark))
    assert milliseconds(report.seconds) == {
        "up": 30_000,
        "degraded": 0,
        "down": 0,
        "unknown": 20_000,
        "excused": 0,
    }
    assert reasons(report) == {(None, "unknown", "not-running")}
    assert report.window.mark.split(".")[0] == mark.split(".")[0]


def test_kill_9_between_checkpoints_loses_one_check_at_most(world):
    world.pass_time(40 * INTERVAL + 4_999)  # far from a checkpoint: it comes every 100 checks
    world.kill()
    world.pass_time(10_000)
    world.start()
    report = world.ask()
    assert milliseconds(report.seconds) == {
        "up": 40 * INTERVAL,
        "degraded": 0,
        "down": 0,
        "unknown": 4_999 + 10_000,
        "excused": 0,
    }


def test_torn_file_keeps_what_is_proven_and_sets_the_file_aside(world):
    world.pass_time(10 * INTERVAL)
    mark = world.ask(ping(1)).window.mark
    world.pass_time(4 * INTERVAL)
    world.kill()
    world.path.write_bytes(world.path.read_bytes()[:-7])
    world.start()
    report = world.ask(ping(2, mark))
    assert milliseconds(report.seconds)["up"] == 3 * INTERVAL
    assert milliseconds(report.seconds)["unknown"] == INTERVAL
    assert len(list(world.path.parent.glob("host.ledger.corrupt-*"))) == 1


def test_a_file_without_a_valid_beginning_is_set_aside_and_the_ledger_begins_anew(world):
    world.pass_time(10 * INTERVAL)
    mark = world.ask(ping(1)).window.mark
    world.kill()
    world.path.write_bytes(b"\0" * 5_000)
    world.start()
    world.pass_time(INTERVAL)
    report = world.ask(PingRequest(ping_id="2", since_mark=mark, window_seconds=20.0))
    assert report.window.mark.split(".")[0] != mark.split(".")[0]
    assert milliseconds(report.seconds) == {
        "up": 5_000,
        "degraded": 0,
        "down": 0,
        "unknown": 15_000,
        "excused": 0,
    }
    assert (None, "unknown", "not-recorded") in reasons(report)


def test_reboot_faster_than_a_check(world):
    world.pass_time(10 * INTERVAL)
    mark = world.ask(ping(1)).window.mark
    world.reboot(2_000)
    world.start()
    world.pass_time(INTERVAL)
    report = world.ask(ping(2, mark))
    assert milliseconds(report.seconds)["unknown"] == 2_000
    assert report.window.seconds == 7.0
    assert (None, "unknown", "reboot") in reasons(report)
    assert report.boot_id == "boot-2"


@pytest.mark.parametrize("step", [-HOUR, HOUR])
def test_wall_clock_stepped_by_an_hour(world, step):
    world.pass_time(MINUTE)
    mark = world.ask(ping(1)).window.mark
    world.pass_time(MINUTE)
    world.step_clock(step)
    world.pass_time(MINUTE)
    report = world.ask(ping(2, mark))
    assert milliseconds(report.seconds)["up"] == 2 * MINUTE
    assert report.window.seconds == 120.0
    assert (report.window.until - report.window.since).total_seconds() == 120.0


def test_wall_clock_stepped_back_across_a_reboot_never_makes_time_negative(world):
    world.pass_time(MINUTE)
    mark = world.ask(ping(1)).window.mark
    world.reboot(30_000)
    world.step_clock(-HOUR)
    world.start()
    report = world.ask(ping(2, mark))
    assert report.window.seconds == 20.0  # what the new boot itself has seen pass is certain
    assert report.uptime_percent == 0.0


def test_suspend_and_resume(world):
    world.pass_time(MINUTE)
    mark = world.ask(ping(1)).window.mark
    world.pass_time(HOUR, asleep=True)
    world.pass_time(MINUTE)
    report = world.ask(ping(2, mark))
    assert milliseconds(report.seconds)["unknown"] == HOUR - HALF
    assert report.window.seconds == 3660.0
    assert reasons(report) == {(None, "unknown", "no-sample")}


def test_agent_frozen_over_two_pings(world):
    world.pass_time(MINUTE)
    mark = world.ask(ping(1)).window.mark
    world.pass_time(15 * MINUTE, asleep=True)  # ping 2 is missed
    world.pass_time(15 * MINUTE, asleep=True)  # ping 3 is missed
    report = world.ask(ping(4, mark))
    assert report.window.seconds == 30 * 60.0
    assert milliseconds(report.seconds)["unknown"] == 30 * MINUTE - HALF


@pytest.mark.parametrize(("gap", "unknown"), [(LONGEST_GAP, 0), (LONGEST_GAP + 1, 5_001)])
def test_samples_at_most_one_and_a_half_intervals_apart_credit_the_time_between(
    world, gap, unknown
):
    mark = world.ask(ping(1)).window.mark
    world.pass_time(gap, asleep=True)
    world.pass_time(0)
    report = world.ask(ping(2, mark))
    assert milliseconds(report.seconds)["unknown"] == unknown
    assert milliseconds(report.seconds)["up"] == gap - unknown


def test_a_stop_in_good_order_credits_half_an_interval_at_most(world):
    world.pass_time(MINUTE)
    mark = world.ask(ping(1)).window.mark
    world.pass_time(4_999)
    world.stop()
    world.pass_time(20_000)
    world.start()
    report = world.ask(ping(2, mark))
    assert milliseconds(report.seconds)["up"] == HALF
    assert milliseconds(report.seconds)["unknown"] == 24_999 - HALF


@pytest.mark.parametrize("opening", [0, 300, 1_500, 3_000, 9_000])
def test_ledger_time_begins_at_process_start_as_unknown(tmp_path, opening):
    world = World(tmp_path)
    world.opening = opening
    world.start()
    world.pass_time(64_000 - opening)
    report = world.ask(ping(1))
    assert report.window.seconds == 64.0
    assert milliseconds(report.seconds)["unknown"] == opening
    assert milliseconds(report.seconds)["up"] == 64_000 - opening
    told = {(None, "unknown", "starting")} if opening else set()
    assert reasons(report) == told


def test_a_probe_that_never_had_a_sample_is_unknown_time_and_not_no_time(tmp_path):
    store = LedgerStore(tmp_path / "host.ledger", settings.load({}))
    store.open(1_000)
    store.resume("session", "boot", ClockReading(0, 1_000))
    now = ClockReading(45 * MINUTE, 1_000 + 45 * MINUTE)
    made = reports.report(store.ledger, "host", ping(1), now, "test")
    assert made.window.seconds == 2700.0
    assert made.seconds.unknown == 2700.0
    assert made.uptime_percent == 0.0
    assert made.failure == "starting"
    store.close()


def test_a_restart_is_unknown_until_the_first_look(world):
    world.pass_time(MINUTE)
    mark = world.ask(ping(1)).window.mark
    world.kill()
    world.pass_time(10_000)
    world.opening = 9_000
    world.start()
    report = world.ask(ping(2, mark))
    assert milliseconds(report.seconds)["unknown"] == 19_000
    assert reasons(report) == {(None, "unknown", "not-running"), (None, "unknown", "starting")}


class NothingWritten(random.Random):
    """The dice of a power cut that takes everything that was not synced."""

    def randrange(self, *_args) -> int:
        return 0


@pytest.mark.parametrize("step", [0, -HOUR, -30 * 24 * HOUR])
def test_after_a_power_cut_with_the_clock_set_back_nothing_is_counted_again(tmp_path, step):
    world = World(tmp_path, checkpoint=100)
    world.start()
    world.pass_time(20 * INTERVAL)
    world.ask(ping(1))
    world.pass_time(26 * INTERVAL)  # 130 s since anything was synced
    mark = world.ask(ping(2)).window.mark
    world.step_clock(step)
    world.reboot(1_000, power_cut=NothingWritten())
    world.start()
    world.pass_time(MINUTE)
    report = world.ask(PingRequest(ping_id="ping-3", since_mark=mark, window_seconds=1e6))
    assert report.window.seconds == pytest.approx(61.0, abs=1.0)
    assert milliseconds(report.seconds)["up"] == MINUTE


@pytest.mark.parametrize("failure", ["driver-mismatch", "library-absent", "permission"])
@pytest.mark.parametrize("known", [True, False])
def test_nothing_looked_at_is_never_told_as_nothing_there(tmp_path, failure, known):
    world = World(tmp_path, gpus=2 if known else 0)
    world.start()
    world.pass_time(INTERVAL)
    now = world.read_clocks()
    world.store.queue(world.ledger.observe(Sample(at=now.boot / 1000, failure=failure), now))
    world.pass_time(1_000)
    report = world.ask()
    assert report.failure == failure
    state = "unknown" if failure == "permission" or not known else "down"
    assert (None, state, failure) in reasons(report)
    assert not {reason for _, _, reason in reasons(report)} & {"absent", "missing"}
    assert [gpu.reasons for gpu in report.gpus] == [(failure,)] * (2 if known else 0)


def test_expected_gpus_come_with_the_ping_so_that_a_wiped_disk_does_not_reset_them(world):
    world.ledger.enroll(("GPU-0", "GPU-1", "GPU-2"))
    report = world.ask()
    assert [gpu.uuid for gpu in report.gpus] == ["GPU-0", "GPU-1", "GPU-2"]
    missing = report.gpus[-1]
    assert (missing.state, missing.reasons) == ("down", ("missing",))
    mark = report.window.mark
    world.pass_time(INTERVAL)
    report = world.ask(PingRequest(since_mark=mark))
    assert report.seconds.down == INTERVAL / 1000


def test_a_report_is_never_cut_so_that_expected_gpus_drop_out_of_it(tmp_path):
    world = World(tmp_path)
    world.gpus = {f"GPU-{number:036}": "down" for number in range(256)}
    world.expected = tuple(world.gpus)[:150]
    world.start()
    world.pass_time(INTERVAL)
    report = world.ask()
    assert {gpu.uuid for gpu in report.gpus} >= set(world.expected)
    full = reports.report(world.ledger, "host", PingRequest(), world.read_clocks(), "test")
    assert len(reports.encoded(full, world.expected)) <= reports.LARGEST_BYTES


def test_a_gpu_that_was_forgotten_within_the_window_is_not_cut_off_either(tmp_path):
    world = World(tmp_path)
    world.gpus = {f"GPU-{number:036}": "up" for number in range(256)}
    *kept, forgotten = world.expected = tuple(world.gpus)[:150]
    world.start()
    world.pass_time(INTERVAL)
    world.ledger.enroll(kept)
    request = PingRequest(
        expected_gpus=tuple(kept),
        expected_changes=(ExpectedChange(uuid=forgotten, expected=False, seconds_ago=1.0),),
    )
    assert forgotten in {gpu.uuid for gpu in world.ask(request).gpus}


@pytest.mark.parametrize("minutes_between", [0, 1])
def test_a_gpu_that_was_forgotten_and_expected_again_counts_before_and_after(
    world, minutes_between
):
    """Also where both took effect at one moment, because it was forgotten by mistake."""
    world.set_gpu("GPU-1", "down")
    world.pass_time(10 * MINUTE)
    ago = 60.0 * (4 + minutes_between)
    request = PingRequest(
        window_seconds=600.0,
        expected_gpus=("GPU-0", "GPU-1"),
        expected_changes=(
            ExpectedChange(uuid="GPU-1", expected=False, seconds_ago=ago),
            ExpectedChange(uuid="GPU-1", expected=True, seconds_ago=240.0),
        ),
    )
    report = world.ask(request)
    assert report.seconds.down == pytest.approx(600.0 - 60.0 * minutes_between, abs=5.0)


def test_lost_reply_makes_the_next_window_longer(world):
    world.pass_time(MINUTE)
    mark = world.ask(ping(1)).window.mark
    world.pass_time(MINUTE)
    world.ask(ping(2, mark))  # lost on the way
    world.pass_time(MINUTE)
    report = world.ask(ping(3, mark))
    assert report.window.seconds == 120.0
    assert milliseconds(report.seconds)["up"] == 2 * MINUTE


def test_late_reply_after_the_timeout_costs_nothing(world):
    world.pass_time(MINUTE)
    mark = world.ask(ping(1)).window.mark
    world.pass_time(MINUTE)
    late = world.ask(ping(2, mark))
    world.pass_time(
        20_000
    )  # beyond the scheduler's time-out: it drops the report and keeps its mark
    report = world.ask(ping(3, mark))
    assert report.window.since == late.window.since
    assert report.window.seconds == late.window.seconds + 20.0
    assert report.uptime_percent == 100.0


def test_two_schedulers_pinging_the_same_agent_get_the_same_account(world):
    world.pass_time(MINUTE)
    mark = world.ask(ping(1)).window.mark
    world.pass_time(MINUTE)
    one = world.ask(ping(2, mark))
    other = world.ask(PingRequest(ping_id="of the other", since_mark=mark))
    assert (one.window, one.seconds) == (other.window, other.seconds)


def test_monitor_down_over_a_whole_interval(world):
    mark = world.ask(ping(1)).window.mark
    world.pass_time(31 * MINUTE)
    outage = world.span(5 * MINUTE, 20 * MINUTE)
    report = world.ask(PingRequest(ping_id="2", since_mark=mark, excused=(outage,)))
    assert milliseconds(report.seconds) == {
        "up": 16 * MINUTE,
        "degraded": 0,
        "down": 0,
        "unknown": 0,
        "excused": 15 * MINUTE,
    }
    assert report.uptime_percent == 100.0


@pytest.mark.parametrize("step", [-8 * HOUR, 0, 8 * HOUR])
def test_excused_time_is_told_by_its_age_whatever_the_hosts_clock_says(world, step):
    mark = world.ask(ping(1)).window.mark
    world.pass_time(31 * MINUTE)
    outage = world.span(5 * MINUTE, 20 * MINUTE)
    world.step_clock(step)
    report = world.ask(PingRequest(ping_id="2", since_mark=mark, excused=(outage,)))
    assert milliseconds(report.seconds)["excused"] == 15 * MINUTE
    assert milliseconds(report.seconds)["up"] == 16 * MINUTE


def test_excused_time_of_an_older_scheduler_is_told_by_wall_times(world):
    mark = world.ask(ping(1)).window.mark
    world.pass_time(31 * MINUTE)
    outage = world.wall_span(5 * MINUTE, 20 * MINUTE)
    report = world.ask(PingRequest(ping_id="2", since_mark=mark, excused=(outage,)))
    assert milliseconds(report.seconds)["excused"] == 15 * MINUTE


@pytest.mark.parametrize("age", [1e300, -1e300])
def test_an_absurd_age_is_no_error(world, age):
    mark = world.ask(ping(1)).window.mark
    world.pass_time(MINUTE)
    span = ExcusedSpan(since_seconds_ago=1e300, until_seconds_ago=age)
    report = world.ask(PingRequest(ping_id="2", since_mark=mark, excused=(span,)))
    assert milliseconds(report.seconds)["excused"] in (0, MINUTE)


def test_gpu_missing_at_start(tmp_path):
    world = World(tmp_path)
    world.gpus["GPU-1"] = "missing"
    world.start()  # the registry knows both
    world.pass_time(INTERVAL)
    mark = world.ask(ping(1)).window.mark
    world.pass_time(MINUTE)
    report = world.ask(ping(2, mark))
    assert report.uptime_percent == 0.0
    assert report.gpu_available
    missing = report.gpus[-1]
    assert (missing.uuid, missing.state, missing.reasons, missing.index) == (
        "GPU-1",
        "down",
        ("missing",),
        None,
    )
    assert ("GPU-1", "down", "missing") in reasons(report)


def test_gpu_lost_then_back(world):
    mark = world.ask(ping(1)).window.mark
    world.pass_time(2 * INTERVAL - 1)
    world.set_gpu("GPU-0", "down")
    world.pass_time(3 * INTERVAL)
    world.set_gpu("GPU-0", "up")
    world.pass_time(INTERVAL + 1)
    report = world.ask(ping(2, mark))
    lost, fine = report.gpus
    assert milliseconds(lost.seconds)["down"] == 3 * INTERVAL
    assert milliseconds(fine.seconds)["up"] == 6 * INTERVAL
    assert milliseconds(report.seconds)["down"] == 3 * INTERVAL
    assert report.uptime_percent == 50.0
    assert lost.state == "up"


def test_one_gpus_error_does_not_hide_the_others(world):
    world.set_gpu("GPU-0", "down")
    world.pass_time(2 * INTERVAL)
    world.set_gpu("GPU-1", "degraded")
    world.pass_time(2 * INTERVAL)
    told = reasons(world.ask())
    assert {("GPU-0", "down", "down"), ("GPU-1", "degraded", "degraded")} <= told


def test_probe_hung_for_ever(world):
    world.pass_time(INTERVAL - 1)
    mark = world.ask(ping(1)).window.mark
    world.hang(24 * HOUR)
    world.pass_time(HOUR + 1)
    report = world.ask(ping(2, mark))
    assert milliseconds(report.seconds)["down"] == HOUR  # from the first check that did not return
    assert milliseconds(report.seconds)["up"] == 1
    assert reasons(report) == {(None, "down", "hung")}
    assert all(gpu.reasons == ("hung",) for gpu in report.gpus)
    assert not report.gpu_available


def test_zero_percent_is_a_value(world):
    for gpu in world.gpus:
        world.set_gpu(gpu, "down")
    world.pass_time(INTERVAL)
    mark = world.ask(ping(1)).window.mark
    world.pass_time(MINUTE)
    report = world.ask(ping(2, mark))
    assert report.uptime_percent == 0.0
    assert not report.gpu_available  # they are there, and none of them works


def test_all_unknown_is_zero_percent_and_not_null(world):
    world.pass_time(MINUTE)
    world.stop()
    mark = f"{world_ledger_id(world)}.{MINUTE}"
    world.pass_time(MINUTE)
    world.start()
    report = world.ask(ping(1, mark))
    assert milliseconds(report.seconds)["unknown"] == MINUTE
    assert report.uptime_percent == 0.0


def world_ledger_id(world) -> str:
    return world.path.read_text().split('"')[3]


def test_empty_window_is_null_and_not_the_last_value(world):
    world.pass_time(MINUTE)
    first = world.ask(ping(1))
    assert first.uptime_percent == 100.0
    again = world.ask(ping(2, first.window.mark))
    assert again.uptime_percent is None
    assert again.window.seconds == 0.0
    assert [gpu.uptime_percent for gpu in again.gpus] == [None, None]


def test_wholly_excused_window_is_null(world):
    mark = world.ask(ping(1)).window.mark
    world.pass_time(MINUTE)
    report = world.ask(
        PingRequest(ping_id="2", since_mark=mark, excused=(world.span(-MINUTE, HOUR),))
    )
    assert report.uptime_percent is None
    assert milliseconds(report.seconds)["excused"] == MINUTE


def test_partial_first_month_time_before_the_ledger_is_unknown(world):
    world.pass_time(10 * 24 * HOUR // 240)  # an hour, to keep the test quick
    report = world.ask(PingRequest(ping_id="1", window_seconds=7200.0))
    assert milliseconds(report.seconds) == {
        "up": HOUR,
        "degraded": 0,
        "down": 0,
        "unknown": HOUR,
        "excused": 0,
    }


def test_overlapping_maintenance_counts_once(world):
    mark = world.ask(ping(1)).window.mark
    world.pass_time(10 * MINUTE)
    booked = (
        world.span(2 * MINUTE, 5 * MINUTE),
        world.span(1 * MINUTE, 3 * MINUTE),
        world.span(4 * MINUTE, 4 * MINUTE + 1),
        world.span(9 * MINUTE, 30 * MINUTE),
        world.span(8 * MINUTE, 7 * MINUTE),  # it ends before it begins, so it excuses nothing
    )
    report = world.ask(PingRequest(ping_id="2", since_mark=mark, excused=booked))
    assert milliseconds(report.seconds)["excused"] == 5 * MINUTE
    assert milliseconds(report.seconds)["up"] == 5 * MINUTE


def test_a_re_registered_agent_keeps_its_ledger(world):
    world.pass_time(MINUTE)
    mark = world.ask(ping(1)).window.mark
    before = list(world.ledger.records())
    assert world.ledger.enroll(world.expected) == []
    assert world.ledger.enroll(()) == []  # a registry that has not heard a report yet
    assert list(world.ledger.records()) == before
    world.pass_time(MINUTE)
    assert world.ask(ping(2, mark)).uptime_percent == 100.0


def test_two_hosts_with_the_same_id_show_two_boots_and_never_mix_their_marks(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, other = World(tmp_path / "a"), World(tmp_path / "b")
    other.boots = 77
    for world in (one, other):
        world.start()
        world.pass_time(MINUTE)
    mark = one.ask(ping(1)).window.mark
    report = other.ask(PingRequest(ping_id="2", since_mark=mark, window_seconds=10.0))
    assert report.boot_id != one.ask().boot_id
    assert report.window.seconds == 10.0  # the other host's mark means nothing here


def test_a_mark_from_the_future_is_unknown(world):
    world.pass_time(MINUTE)
    mark = f"{world_ledger_id(world)}.{HOUR}"
    report = world.ask(PingRequest(ping_id="1", since_mark=mark, window_seconds=30.0))
    assert report.window.seconds == 30.0


@pytest.mark.parametrize(
    "mark",
    ["", "x", ".", "abc.-5", "abc.1e3", "{ledger}.", "{ledger}.-1", "{ledger}.٣", "a" * 500],
)
def test_a_mark_that_is_none_is_unknown(world, mark):
    world.pass_time(MINUTE)
    mark = mark.replace("{ledger}", world_ledger_id(world))
    assert world.ask(PingRequest(since_mark=mark, window_seconds=30.0)).window.seconds == 30.0


def test_a_day_of_checks_is_exact_within_the_guides_history_size(tmp_path):
    world = World(tmp_path, gpus=1, history=10_000)
    world.start()
    mark = world.ask(ping(1)).window.mark
    down = 0
    for check in range(17_280):
        if check % 4 == 1:  # 8,640 changes: more would not fit, and samples would not either
            world.set_gpu("GPU-0", "down" if world.gpus["GPU-0"] == "up" else "up")
        was = world.gpus["GPU-0"]
        world.pass_time(INTERVAL)
        down += INTERVAL if was == "down" else 0
    world.tolerances.clear()
    report = world.ask(ping(2, mark))
    seconds = milliseconds(report.seconds)
    assert report.window.seconds == 86_400.0
    assert seconds["unknown"] == 0
    assert (
        abs(seconds["down"] - down) <= INTERVAL
    )  # every change is seen one check late: they cancel but one
    assert seconds["up"] + seconds["down"] == 86_400_000


def test_beyond_the_history_size_the_oldest_time_is_unknown_and_never_invented(tmp_path):
    world = World(tmp_path, gpus=2, history=10)
    world.start()
    for _ in range(40):
        world.set_gpu("GPU-0", "down" if world.gpus["GPU-0"] == "up" else "up")
        world.pass_time(INTERVAL)
    report = world.ask()
    flapping, calm = report.gpus
    assert milliseconds(flapping.seconds)["unknown"] == 31 * INTERVAL
    assert milliseconds(calm.seconds) == {
        "up": 40 * INTERVAL,
        "degraded": 0,
        "down": 0,
        "unknown": 0,
        "excused": 0,
    }


def test_power_cut_loses_what_was_not_synced_and_says_unknown(tmp_path):
    world = World(tmp_path, checkpoint=10)
    world.start()
    world.pass_time(95 * INTERVAL)
    mark = world.ask(ping(1)).window.mark
    world.reboot(60_000, power_cut=random.Random(1))
    world.start()
    report = world.ask(PingRequest(since_mark=mark))
    assert report.window.seconds == 60.0
    whole = world.ask(PingRequest(window_seconds=world.true / 1000))
    assert milliseconds(whole.seconds)["unknown"] <= 60_000 + 10 * INTERVAL


def test_records_make_the_same_ledger_again(world):
    world.set_gpu("GPU-0", "degraded")
    world.pass_time(MINUTE)
    world.ask(ping(1))
    again = type(world.ledger)(world.ledger.created, interval=5.0, limit=10_000)
    for record in world.ledger.records():
        again.apply(record)
    assert list(again.records()) == list(world.ledger.records())
    assert again.position(ClockReading(world.boot, world.wall)) == world.ledger.position(
        world.read_clocks()
    )


def test_a_look_covers_the_time_since_the_last_counted_report_also_after_a_restart(world):
    world.pass_time(MINUTE)
    world.ask(ping(1))
    world.pass_time(20_000)
    assert world.ask().window.seconds == 20.0
    world.stop()
    world.start()
    assert world.ask().window.seconds == 20.0


@pytest.mark.parametrize("failure", [None, "driver-not-loaded"])
def test_a_probe_that_fails_for_45_minutes_loses_no_second_and_is_judged(tmp_path, failure):
    """All 2,700 s are in the window that is admitted, and the ping is not excused.

    None: the probe never answers, so that nothing was looked at.
    """
    length = 45 * MINUTE
    store = LedgerStore(tmp_path / "host.ledger", settings.load({}))
    store.open(1_000)
    store.resume("session", "boot", ClockReading(0, 1_000))
    if failure is not None:
        for at in range(0, length + 1, INTERVAL):
            sample = Sample(at=at / 1000, failure=failure)
            store.queue(store.ledger.observe(sample, ClockReading(at, 1_000 + at)))
    now = ClockReading(length, 1_000 + length)
    report = reports.report(store.ledger, "host", ping(1), now, "test")
    store.close()
    window = MeasuredWindow(since=0, until=length, elapsed=length, answer=10)
    admitted = admit_report(window, report)
    assert isinstance(admitted, Admitted)
    assert astuple(admitted.host) == (0, 0, 0, 2_700_000, 0)
    result = Answered(admitted.host.uptime_percent, report.gpu_available)
    step = advance(Standing(answered=1), result, POLICY)
    assert (step.verdict, step.reason) == ("poor", "no_gpu")
    assert report.failure == (failure or "starting")
