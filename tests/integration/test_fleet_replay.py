"""The fleet under other rules: classes of windows are paid as their windows one by one."""

from pathlib import Path

import pytest

from bus.contract.durations import Durations
from bus.contract.statements import READY_MADE, FleetReplayRequest
from bus.settings import load
from storage.statements import payment, policy_files, replay
from storage.statements.payment import PayableWindow, Terms
from tests.storage_kept import MONTH, NOW, Kept, fleet


@pytest.fixture
async def kept(tmp_path: Path):
    made = Kept(load({}, GPUPING_DATA_DIR=str(tmp_path), STORAGE_ARCHIVE_AFTER_DAYS=20))
    yield made
    await made.store.close()


@pytest.mark.parametrize("policy", [None, *READY_MADE, "own"])
async def test_the_fleet_is_paid_as_window_by_window(kept: Kept, policy: str | None):
    """Windows are summed by class in the database; paid one by one they come to the same."""
    states = fleet()
    await kept.fill(states)
    own = (
        'name = "own"\nbasis = "window"\n'
        'degraded_counts_as_up = false\nunknown_counts = "excused"\n'
        "[[bands]]\nat_least = 97.0\nrate = 1.0\n[[bands]]\nat_least = 91.5\nrate = 0.3\n"
    )
    chosen = own if policy == "own" else policy
    asked = FleetReplayRequest(month=MONTH, threshold=97.5, policy=chosen)
    made = await kept.store.read(lambda reader: replay.fleet(reader, asked, NOW, 99.0))
    assert made.gains + made.loses + made.same == len(made.agents) == 4
    now = payment.threshold_terms(99.0)
    then = payment.threshold_terms(97.5)
    if chosen is not None:
        then = Terms(policy_files.read_rules(chosen), 97.5)
    for agent in made.agents:
        windows = [
            PayableWindow(Durations.from_seconds(one.last.seconds), False, True, None)
            for one in states
            if one.agent_id == agent.agent_id and one.last.seconds
        ]
        covered_ms = sum(one.durations.window for one in windows)
        expected = payment.replay(windows, covered_ms, now, then)
        assert agent.now_paid_percent == pytest.approx(expected.now.paid_percent, abs=1e-9)
        assert agent.then_paid_percent == pytest.approx(expected.then.paid_percent, abs=1e-9)
        assert agent.change == expected.change
        assert agent.covered_seconds == pytest.approx(covered_ms / 1000)
    changes = [abs(agent.change_percent) for agent in made.agents]
    assert changes == sorted(changes, reverse=True)
    assert made.now_paid_percent == pytest.approx(
        sum(a.now_paid_percent * a.covered_seconds for a in made.agents)
        / sum(a.covered_seconds for a in made.agents)
    )


def test_the_policies_named_for_people_are_those_that_there_are():
    assert sorted(READY_MADE) == policy_files.ready_made()
