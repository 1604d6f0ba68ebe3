"""Two agents under one id are told from a restart, a reboot, a lost GPU and a replaced one."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import pytest

from bus.contract.messages import (
    AgentEntry,
    AgentState,
    GpuChange,
    GpuReport,
    Outcome,
    UptimeReport,
    Window,
)
from scheduler.fleet.rules.duplicate_ids import REMEMBERED, Identities, identities, is_conflicting

NOW = datetime(2026, 11, 23, tzinfo=UTC)
ENTRY = AgentEntry(agent_id="a", registered_at=NOW, enrolled_at=NOW)


def answer(boot: str, session: str, present: str, lost: str = "") -> UptimeReport:
    """One letter a GPU."""
    gpus = [GpuReport(uuid=f"GPU-{name}", index=number) for number, name in enumerate(present)]
    gpus += [GpuReport(uuid=f"GPU-{name}", state="down") for name in lost]
    window = Window(since=NOW, until=NOW, seconds=0.0)
    return UptimeReport(
        agent_id="a",
        window=window,
        uptime_percent=None,
        gpu_available=True,
        boot_id=boot,
        session_id=session,
        gpus=tuple(gpus),
    )


def state_of(found: Identities, answered_at: datetime) -> AgentState:
    outcome = Outcome(
        ping_id="p", ping_seq=1, pinged_at=answered_at, outcome="answered", verdict="good"
    )
    return AgentState(
        agent_id="a",
        ping_seq=1,
        interval_seconds=900.0,
        next_ping_at=answered_at,
        last=outcome,
        last_answered_at=answered_at,
        **found._asdict(),
    )


def walk(reports: Iterable[UptimeReport | None], entry: AgentEntry = ENTRY) -> list[Identities]:
    """A ping a minute."""
    found = []
    state = None
    for number, report in enumerate(reports):
        found.append(identities(state, entry, report))
        state = state_of(found[-1], NOW + timedelta(minutes=number))
    return found


def conflicts(found: list[Identities]) -> list[bool]:
    return [is_conflicting(state_of(one, NOW)) for one in found]


def test_two_containers_on_one_host_alternate_by_session():
    found = walk([answer("boot", "s1", "x"), answer("boot", "s2", "x"), answer("boot", "s1", "x")])
    assert conflicts(found) == [False, False, True]
    assert found[2].conflicting_sessions == ("s1", "s2")
    assert found[2].conflicting_boot_ids == ()


def test_two_hosts_alternate_by_boot_and_session():
    found = walk([answer("b1", "s1", "x"), answer("b2", "s2", "y"), answer("b1", "s1", "x")])
    assert conflicts(found) == [False, False, True]
    assert found[2].conflicting_boot_ids == ("b1", "b2")
    assert found[2].conflicting_sessions == ("s1", "s2")


def test_two_agents_that_restart_before_each_answer_alternate_by_their_gpus():
    found = walk(
        [
            answer("boot", "s1", "x"),
            answer("boot", "s2", "y", lost="x"),
            answer("boot", "s3", "x"),
            answer("boot", "s4", "y", lost="x"),
        ]
    )
    assert conflicts(found) == [False, False, True, True]
    assert found[2].conflicting_gpus == ("GPU-x",)  # the report before is not in this state


@pytest.mark.parametrize(
    "reports",
    [
        [answer("boot", f"s{number}", "xy") for number in range(9)],
        [answer(f"b{number}", f"s{number}", "xy") for number in range(9)],
        [answer("boot", "s", "xy"), answer("boot", "s", "x", "y"), answer("boot", "s", "xy")] * 3,
        [answer("boot", "s", "x"), answer("boot", "s", "", "x"), answer("boot", "s", "x")] * 3,
        [answer("boot", "s", "x"), None, answer("boot", "s", "x")] * 3,
        [answer("boot", "s", "x"), answer("boot", "s", "mn"), answer("boot", "s", "x")] * 3,
        [answer("", "", ""), answer("", "", ""), answer("", "", "")],
    ],
    ids=[
        "agentd restarts",
        "reboots",
        "a GPU is lost and back",
        "the only GPU is lost and back",
        "misses",
        "MIG devices come and go",
        "an agent that tells nothing",
    ],
)
def test_what_one_host_does_is_no_conflict(reports):
    assert not any(conflicts(walk(reports)))


def test_a_gpu_that_the_operator_replaced_and_put_back_is_no_conflict():
    state = None
    shown = []
    changes: tuple[GpuChange, ...] = ()
    for number, gpu in enumerate("xxyyxx"):
        at = NOW + timedelta(minutes=number)
        if number in {2, 4}:
            made = GpuChange(uuid=f"GPU-{gpu}", expected=True, since=at, author="ada", at=at)
            changes = (*changes, made)
        entry = AgentEntry(agent_id="a", registered_at=NOW, enrolled_at=NOW, gpu_changes=changes)
        found = identities(state, entry, answer("boot", f"s{number}", gpu))
        shown.append(found)
        state = state_of(found, at)
    assert not any(conflicts(shown))


def test_a_conflict_ends_with_a_session_that_was_never_seen():
    found = walk(
        [
            answer("boot", "s1", "x"),
            answer("boot", "s2", "x"),
            answer("boot", "s1", "x"),
            answer("boot", "s1", "x"),
            None,
            answer("boot", "s3", "x"),
        ]
    )
    assert conflicts(found) == [False, False, True, True, True, False]


def test_no_more_than_a_few_are_remembered():
    last = walk([answer(f"b{n}", f"s{n}", chr(97 + n)) for n in range(20)])[-1]
    for remembered in (last.boot_ids, last.session_ids, last.gpu_sets):
        assert len(remembered) == REMEMBERED
    assert last.session_ids[0] == "s19"
