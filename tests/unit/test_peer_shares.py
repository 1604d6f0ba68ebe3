"""How agents are divided among schedulers."""

from collections import Counter

import pytest

from scheduler.cluster.peers import new_instance, weight

AGENTS = [f"gpu-host-{number:05d}" for number in range(6000)]


@pytest.mark.parametrize("schedulers", [2, 3, 5, 7])
def test_agents_are_divided_evenly(schedulers: int):
    """With CRC32 three schedulers had 50, 25 and 25 %."""
    for _ in range(5):
        instances = [new_instance() for _ in range(schedulers)]
        shares: Counter[str] = Counter()
        for agent_id in AGENTS:
            owner = max(instances, key=lambda instance: weight(instance, agent_id))
            shares[owner] += 1
        fair = len(AGENTS) / schedulers
        for instance in instances:
            assert abs(shares[instance] - fair) < 0.12 * fair, shares


def test_only_the_agents_of_a_scheduler_that_goes_change_hands():
    instances = [new_instance() for _ in range(3)]
    for agent_id in AGENTS[:500]:
        before = max(instances, key=lambda instance: weight(instance, agent_id))
        after = max(instances[:2], key=lambda instance: weight(instance, agent_id))
        if before != instances[2]:
            assert after == before
