"""The next state carries everything that the policy decided."""

from datetime import UTC, datetime

from bus.contract import subjects
from bus.contract.durations import Durations
from bus.contract.messages import (
    AgentEntry,
    AnsweredPing,
    GpuReport,
    Standing,
    UptimeReport,
    Window,
    decode,
)
from bus.contract.questions import MAX_EXPECTED_GPUS
from scheduler.fleet.directory import Directory
from scheduler.ping.accounting.admission import Admitted
from scheduler.ping.attempt import PingAttempt
from scheduler.ping.next_state import next_state, writes
from scheduler.policy import Answered, Missed, Policy, advance

NOW = datetime(2026, 11, 26, tzinfo=UTC)
POLICY = Policy(
    base_seconds=900,
    max_seconds=86_400,
    multiplier=2.0,
    threshold_percent=99.0,
    recovery_pings=3,
    grace=False,
)


def test_no_field_of_the_standing_is_left_out():
    directory = Directory(POLICY)
    directory.apply_entry("a", AgentEntry(agent_id="a", registered_at=NOW, enrolled_at=NOW), 1)
    tracked = directory.get("a")
    assert tracked
    attempt = PingAttempt("a", tracked, "p-1", NOW)
    attempt.start(NOW, "nonce", AnsweredPing(boot_id="boot", boottime=1.0), 10.0)
    attempt.base_state = None
    state = next_state(attempt, Missed("timeout"), NOW, POLICY)
    assert state.last.enrolled_at == NOW
    step = advance(Standing(), Missed("timeout"), POLICY)
    for name in Standing.__struct_fields__:
        assert getattr(state, name) == getattr(step.standing, name), name
    source = (
        "answered consecutive_poor good_streak recovering no_gpu last_judged last_outcome "
        "uptime_percent unjudged schema_version"
    )
    assert set(Standing.__struct_fields__) == set(source.split()), "next_state has to carry it, too"


def test_the_first_outcome_after_a_restored_backup_says_so() -> None:
    """Missed or answered, once for each agent: the next state is of after the restore."""
    directory = Directory(POLICY)
    directory.apply_entry("a", AgentEntry(agent_id="a", registered_at=NOW, enrolled_at=NOW), 1)
    found = {}
    for revision in (0, 7, 8):  # never pinged; the last that was restored; written since
        tracked = directory.get("a")
        assert tracked
        attempt = PingAttempt("a", tracked, "p-1", NOW)
        attempt.restored_through = 7
        attempt.start(NOW, "nonce", AnsweredPing(boot_id="boot", boottime=1.0), 10.0)
        attempt.base_revision = revision
        missed = next_state(attempt, Missed("timeout"), NOW, POLICY)
        attempt.report = UptimeReport(
            agent_id="a",
            window=Window(since=NOW, until=NOW, seconds=0.0),
            uptime_percent=None,
            gpu_available=True,
        )
        attempt.admitted = Admitted(Durations(), {})
        answered = next_state(attempt, Answered(None, gpu_available=True), NOW, POLICY)
        found[revision] = (missed.last.remarks, answered.last.remarks)
    assert found == {0: ((), ()), 7: (("restored",), ("restored",)), 8: ((), ())}


def entry_after(entry: AgentEntry, *uuids: str, simulated: bool) -> AgentEntry | None:
    """The entry that is written with the outcome of this report; None where it stays."""
    directory = Directory(POLICY)
    directory.apply_entry("a", entry, 1)
    tracked = directory.get("a")
    assert tracked
    attempt = PingAttempt("a", tracked, "p-1", NOW)
    attempt.start(NOW, "nonce", AnsweredPing(boot_id="boot", boottime=1.0), 10.0)
    attempt.report = UptimeReport(
        agent_id="a",
        window=Window(since=NOW, until=NOW, seconds=0.0),
        uptime_percent=None,
        gpu_available=True,
        gpus=tuple(GpuReport(uuid=uuid) for uuid in uuids),
        simulated=simulated,
    )
    attempt.admitted = Admitted(Durations(), {})
    state = next_state(attempt, Answered(None, gpu_available=True), NOW, POLICY)
    for write in writes(attempt, state):
        if write.subject == subjects.agent_key("a"):
            return decode(write.payload, AgentEntry)
    return None


def test_simulated_gpus_are_never_expected_of_a_host_that_has_real_ones():
    enrolled = AgentEntry(agent_id="a", registered_at=NOW, enrolled_at=NOW)
    simulated = entry_after(enrolled, "SIM-0", simulated=True)
    assert simulated
    assert (simulated.expected_gpus, simulated.expects_simulated) == (("SIM-0",), True)
    real = entry_after(simulated, "GPU-0", "GPU-1", simulated=False)
    assert real
    assert (real.expected_gpus, real.expects_simulated) == (("GPU-0", "GPU-1"), False)
    assert entry_after(real, "SIM-0", simulated=True) is None


def test_a_gpu_that_a_first_report_names_twice_is_expected_once():
    """Otherwise the operator could add no GPU any more: the list would name one twice."""
    entry = AgentEntry(agent_id="a", registered_at=NOW, enrolled_at=NOW)
    after = entry_after(entry, "GPU-1", "GPU-0", "GPU-1", simulated=False)
    assert after is not None
    assert after.expected_gpus == ("GPU-1", "GPU-0")


def test_the_first_report_has_no_more_gpus_expected_than_an_operator_may_name():
    uuids = [f"GPU-{number}" for number in range(MAX_EXPECTED_GPUS + 44)]
    entry = AgentEntry(agent_id="a", registered_at=NOW, enrolled_at=NOW)
    expecting = entry_after(entry, *uuids, simulated=False)
    assert expecting
    assert expecting.expected_gpus == tuple(uuids[:MAX_EXPECTED_GPUS])
