"""`gpuping up` killed at any moment and started again loses nothing and does nothing twice."""

import itertools
import random
import time
from datetime import datetime

import pytest
from system import Up, is_settled, until

EVERY_THREE_SECONDS = {"PING_BASE_INTERVAL_MINUTES": "0.05"}
FLEET = ("--no-agent", "--register-agents", "3")
IDS = ("sim-001", "sim-002", "sim-003")
ROUNDING = 0.002  # seconds: due times are kept to the microsecond, timers to the millisecond


def at(text: str) -> float:
    """An RFC 3339 time as seconds."""
    return datetime.fromisoformat(text).timestamp()


def check_history(pings: list[dict]) -> None:
    """Every number once, none missing, and none before the one ahead of it had said so."""
    assert [ping["ping_seq"] for ping in pings] == list(range(1, len(pings) + 1))
    for earlier, later in itertools.pairwise(pings):
        assert at(later["pinged_at"]) >= at(earlier["next_ping_at"]) - ROUNDING


def complete(up: Up, agent_id: str) -> list[dict]:
    """The history once it holds every ping that the agent has had."""

    def look() -> list[dict] | None:
        agent = up.agents().get(agent_id)  # at a first start it may not have registered yet
        pings = up.pings(agent_id)
        return pings if agent and len(pings) >= agent["total_pings"] > 0 else None

    return until(look, f"the history of {agent_id} is complete")


def after(pings: list[dict], moment: float) -> list[dict]:
    return [ping for ping in pings if at(ping["pinged_at"]) > moment]


@pytest.mark.slow
def test_killed_at_random_moments(launch) -> None:
    moments = random.Random(20261123)
    seen: dict[str, list[dict]] = {}
    registered: dict[str, str] = {}
    for _ in range(3):
        up = launch(*FLEET, **EVERY_THREE_SECONDS)
        if moments.random() < 0.4:  # in the middle of the start
            until(lambda up=up: up.data_dir.exists(), "it has begun")
            time.sleep(moments.uniform(0.0, 1.2))  # the random moment is what is tested
        else:
            up.ready()
            time.sleep(moments.uniform(0.0, 4.0))
            for agent_id, agent in up.agents().items():
                assert (
                    registered.setdefault(agent_id, agent["registered_at"])
                    == agent["registered_at"]
                )
                pings = up.pings(agent_id)
                known = seen.get(agent_id, [])
                assert pings[: len(known)] == known, "what history once showed, it shows for ever"
                seen[agent_id] = pings
        up.kill()

    up = launch(*FLEET, **EVERY_THREE_SECONDS).ready()
    assert set(up.agents()) == set(IDS)
    for agent_id in IDS:
        pings = complete(up, agent_id)
        check_history(pings)
        assert pings[: len(seen[agent_id])] == seen[agent_id]
        assert not [ping for ping in pings if ping["outcome"] == "missed"], (
            "our own outage is no agent's miss"
        )


def test_a_ping_that_came_due_meanwhile_happens_once(launch) -> None:
    up = launch(*FLEET, **EVERY_THREE_SECONDS).ready()
    before = {
        agent_id: until(lambda i=agent_id: up.pings(i), "a first ping")[0] for agent_id in IDS
    }
    up.kill()
    killed = time.time()
    # On a slow machine there were more pings since. All have come due an interval from now.
    until(lambda: time.time() > killed + 3.0 + 1.0, "all have come due", step=0.1)

    restarted = time.time()
    up = launch(*FLEET, **EVERY_THREE_SECONDS).ready()
    for agent_id in IDS:
        until(lambda i=agent_id: len(after(up.pings(i), killed)) >= 2, f"{agent_id} goes on")
        pings = complete(up, agent_id)
        check_history(pings)
        assert pings[0] == before[agent_id]
        due_meanwhile = after(pings, killed)[0]
        assert at(due_meanwhile["pinged_at"]) > restarted
        assert due_meanwhile["late_ms"] >= 1000.0
        if due_meanwhile["outcome"] != "excused":  # for a stall of ours: asked again after a second
            distance = at(due_meanwhile["next_ping_at"]) - at(due_meanwhile["pinged_at"])
            assert distance >= 3.0 - ROUNDING


def test_killed_before_it_is_due_it_keeps_the_due_time(launch) -> None:
    up = launch(*FLEET).ready()
    until(
        lambda: len(up.agents()) == len(IDS) and all(map(is_settled, up.agents().values())),
        "all are well",
    )
    before = up.agents()
    up.kill()
    after = launch(*FLEET).ready().agents()
    for agent_id in IDS:
        for field in (
            "next_ping_at",
            "registered_at",
            "total_pings",
            "status",
            "current_interval_minutes",
        ):
            assert after[agent_id][field] == before[agent_id][field]
