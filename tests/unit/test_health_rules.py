"""Every row of docs/design/gpu-health.md, each as a test of its own; then what holds over time."""

import pytest
from msgspec import structs

from agentd.health.judgement import HealthMemory, Xid, cleared, judge
from agentd.health.rules import (
    DEFAULT_XIDS,
    RULES,
    THERMAL,
    XIDS,
    Reading,
    effect_of,
    failure_of,
    xid_table,
)

GPU = "GPU-0"
WELL = Reading(
    uuid=GPU,
    index=0,
    name="H100",
    recovery_action=0,
    remap_failed=False,
    remap_pending=False,
    ecc_uncorrected=0,
    throttle=0,
    fabric_state=3,
    fabric_status=0,
)


def verdict(**signals):
    """State and reasons of a GPU that is well but for these signals."""
    (gpu,) = judge([structs.replace(WELL, **signals)], [], HealthMemory(), 0.0, DEFAULT_XIDS).gpus
    return gpu.state, gpu.reasons


class Host:
    """A GPU over time: each `check` is five seconds after the last, and has its memory."""

    def __init__(self, memory=None, table=DEFAULT_XIDS):
        self.memory, self.table, self.now = memory or HealthMemory(), table, 1000.0

    def check(self, *xids, failure=None, absent=False, after=5.0, **signals):
        self.now += after
        readings = [] if absent or failure else [structs.replace(WELL, **signals)]
        told = [Xid(GPU, number, self.now) for number in xids]
        judged = judge(readings, told, self.memory, self.now, self.table, failure)
        self.memory, self.events = judged.memory, judged.events
        return (judged.gpus[0].state, judged.gpus[0].reasons) if judged.gpus else None


def test_a_gpu_without_complaint_is_up():
    assert verdict() == ("up", ())


def test_gpu_is_lost():
    assert verdict(error=15) == ("down", ("lost",))


def test_reset_required():
    assert verdict(error=16) == ("down", ("reset-required",))


def test_lost_is_down_until_seen_healthy_again():
    host = Host()
    assert [host.check(error=15)[0], host.check(error=15)[0], host.check()[0]] == [
        "down",
        "down",
        "up",
    ]


@pytest.mark.parametrize(
    ("code", "reason"),
    [(9, "driver-not-loaded"), (10, "timeout"), (999, "unknown-error"), (12, "library-absent")],
)
def test_failures_of_the_driver_and_library_have_a_name(code, reason):
    assert failure_of(code) == reason


def test_a_failure_that_no_table_names_is_told_by_its_number():
    assert failure_of(17) == "nvml-error-17"


def test_timeout_and_unknown_error_of_one_gpu():
    assert verdict(error=10) == ("down", ("timeout",))
    assert verdict(error=999) == ("down", ("unknown-error",))


def test_a_call_that_never_returns():
    assert verdict(hung=True) == ("down", ("hung",))


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        (1, ("down", ("recovery-reset",))),
        (2, ("down", ("recovery-reboot",))),
        (4, ("down", ("recovery-drain-and-reset",))),
        (6, ("down", ("recovery-reset",))),
        (7, ("down", ("recovery-reboot",))),
        (3, ("degraded", ("recovery-drain-p2p",))),
        (5, ("degraded", ("recovery-drain-p2p",))),
        (0, ("up", ())),
    ],
)
def test_recovery_action(action, expected):
    assert verdict(recovery_action=action) == expected


@pytest.mark.parametrize("xid", [48, 62, 64, 79, 95, 119, 120, 140])
def test_fatal_xids_are_down_until_recovery(xid):
    host = Host()
    assert host.check(xid) == ("down", (f"xid:{xid}",))
    assert host.check() == ("down", (f"xid:{xid}",))
    host.check(recovery_action=1)
    assert host.check(recovery_action=0) == ("up", ())


@pytest.mark.parametrize("xid", [74, 94])
def test_nvlink_and_contained_xids_degrade(xid):
    assert Host().check(xid) == ("degraded", (f"xid:{xid}",))


@pytest.mark.parametrize("xid", [13, 31, 43, 45, 68, 109])
def test_application_xids_have_no_effect(xid):
    host = Host()
    assert host.check(xid) == ("up", ())
    assert host.events == ()


def test_any_other_xid_is_an_incident_without_effect():
    host = Host()
    assert host.check(8) == ("up", ())
    assert [(event.uuid, event.reason) for event in host.events] == [(GPU, "xid:8")]


def test_row_remap_failed_and_pending():
    assert verdict(remap_failed=True) == ("down", ("remap-failed",))
    assert verdict(remap_pending=True) == ("degraded", ("remap-pending",))


def test_volatile_uncorrectable_ecc_until_reset():
    host = Host()
    assert host.check(ecc_uncorrected=1) == ("down", ("ecc",))
    assert host.check(ecc_uncorrected=0) == ("up", ())  # the volatile counter falls only by a reset


def test_heat_in_six_of_the_last_ten_minutes_degrades():
    host = Host()
    host.check()
    states = [host.check(throttle=0x40)[0] for _ in range(80)]
    assert states.index("degraded") == 71  # the 72nd check: 360 seconds of slowdown
    assert host.check(throttle=0x20)[1] == ("thermal",)
    cool = [host.check()[0] for _ in range(60)]
    assert (cool[0], cool[-1]) == ("degraded", "up")


def test_heat_is_forgotten_after_ten_minutes():
    host = Host()
    host.check()
    for _ in range(71):
        host.check(throttle=0x40)
    for _ in range(120):
        host.check()
    assert host.check(throttle=0x40) == ("up", ())


@pytest.mark.parametrize("bits", [0x4, 0x80, 0x4 | 0x80 | 0x1])
def test_power_caps_are_normal(bits):
    host = Host()
    assert {host.check(throttle=bits)[0] for _ in range(200)} == {"up"}


def test_fabric_failed():
    assert verdict(fabric_status=999) == ("degraded", ("fabric",))
    assert verdict(fabric_state=2, fabric_status=999) == ("up", ())  # still in progress


def test_mig_devices_are_keyed_and_share_the_health_of_their_gpu():
    devices = [structs.replace(WELL, uuid=f"{GPU}/{gi}/0", gi=gi, ci=0) for gi in (1, 2)]
    gpus = judge(devices, [Xid(GPU, 79, 5.0)], HealthMemory(), 5.0, DEFAULT_XIDS).gpus
    assert [(gpu.uuid, gpu.state) for gpu in gpus] == [
        (f"{GPU}/1/0", "down"),
        (f"{GPU}/2/0", "down"),
    ]


def test_runtime_suspended_is_up():
    nothing = dict.fromkeys(
        ("recovery_action", "ecc_uncorrected", "throttle", "remap_failed", "remap_pending")
    )
    assert verdict(suspended=True, **nothing) == ("up", ())


def test_signals_that_are_not_supported_are_skipped():
    assert judge([Reading(uuid=GPU)], [], HealthMemory(), 0.0, DEFAULT_XIDS).gpus[0].state == "up"


def test_no_reason_hides_another_and_the_worst_decides():
    state, reasons = verdict(
        ecc_uncorrected=3, remap_pending=True, remap_failed=True, recovery_action=3
    )
    assert (state, set(reasons)) == (
        "down",
        {"ecc", "remap-failed", "remap-pending", "recovery-drain-p2p"},
    )
    assert reasons[:2] == ("ecc", "remap-failed")


def test_one_gpu_says_nothing_of_another():
    gpus = judge(
        [structs.replace(WELL, error=15), structs.replace(WELL, uuid="GPU-1")],
        [Xid(GPU, 79, 1.0)],
        HealthMemory(),
        1.0,
        DEFAULT_XIDS,
    ).gpus
    assert [gpu.state for gpu in gpus] == ["down", "up"]


def test_what_could_not_be_read_is_unknown_and_not_down():
    assert verdict(unread="probe-starting") == ("unknown", ("probe-starting",))


def test_a_gpu_that_cannot_be_opened():
    assert verdict(error=8) == ("down", ("insufficient-power",))
    assert verdict(error=11) == ("down", ("irq-issue",))
    assert verdict(error=4) == (
        "unknown",
        ("permission",),
    )  # no permission: says nothing of the GPU


def test_every_rule_and_xid_names_its_source():
    assert all(rule.source for rule in (*RULES, THERMAL))
    assert all(rule.source and rule.meaning for rule in XIDS.values())


class TestRecovery:
    """An XID holds until the GPU was seen to recover, and no longer."""

    def test_lost_and_back_is_recovery(self):
        host = Host()
        host.check(79)
        assert host.check(error=15) == ("down", ("lost", "xid:79"))
        assert host.check() == ("up", ())

    def test_gone_and_back_is_recovery(self):
        host = Host()
        host.check(79)
        host.check(absent=True)
        assert host.check() == ("up", ())

    def test_a_driver_that_was_loaded_again_is_recovery(self):
        host = Host()
        host.check(119)
        host.check(failure="driver-not-loaded")
        assert host.check() == ("up", ())

    def test_a_hang_that_ended_is_none(self):
        host = Host()
        host.check(119)
        host.check(failure="hung")
        host.check(hung=True)
        assert host.check() == ("down", ("xid:119",))

    def test_a_reset_between_two_checks_shows_in_the_energy_counter(self):
        host = Host()
        host.check(62, energy_mj=5_000_000)
        assert host.check(energy_mj=5_000_900)[0] == "down"
        assert host.check(energy_mj=12)[0] == "up"

    def test_recovery_of_before_the_xid_does_not_count(self):
        host = Host()
        host.check(recovery_action=1)
        host.check(recovery_action=0)
        host.check(79)
        assert host.check() == ("down", ("xid:79",))

    def test_the_same_xid_again_starts_anew(self):
        host = Host()
        host.check(79)
        host.check(error=15)
        host.check(79, error=15, after=60.0)
        assert host.check()[0] == "up"
        host.check(79, after=60.0)
        assert host.check()[0] == "down"

    def test_the_operator_can_clear_it(self):
        host = Host()
        host.check(79)
        host.memory = cleared(host.memory, GPU)
        assert host.check() == ("up", ())

    def test_the_same_xid_from_two_places_is_one(self):
        host = Host()
        host.check(8)
        host.now -= 4.0
        host.check(8)
        assert host.events == ()
        host.check(8, after=60.0)
        assert len(host.events) == 1


def test_a_fatal_xid_of_a_gpu_without_a_name_is_not_lost():
    events = judge(
        [WELL], [Xid(None, 79, 1.0), Xid(None, 31, 1.0)], HealthMemory(), 1.0, DEFAULT_XIDS
    ).events
    assert [(event.uuid, event.reason) for event in events] == [(None, "xid:79")]


class TestOverriddenXids:
    def test_an_operator_makes_an_application_xid_matter_and_a_fatal_one_not(self):
        host = Host(table=xid_table('[xid]\n31 = "degraded"\n48 = "incident"\n'))
        assert host.check(31, 48) == ("degraded", ("xid:31",))
        assert [event.reason for event in host.events] == ["xid:48"]
        assert host.check(79)[0] == "down"

    @pytest.mark.parametrize(
        "text", ['[xid]\n31 = "bad"', '[xid]\nabc = "down"', "[xid]\n31 = 4", "[other]\n", "x"]
    )
    def test_nonsense_is_refused(self, text):
        with pytest.raises(ValueError, match=r"."):
            xid_table(text)

    def test_an_xid_without_a_rule_is_an_incident(self):
        assert effect_of(999, DEFAULT_XIDS) == "incident"
