"""The ping policy (docs/design/ping-policy.md), read off a real history of real time.

A GPU goes down and comes back. The first pings come from timers; then pings by hand, which count,
go through the long intervals quickly. `expected` is the policy once more, written from the
requirements and not from the scheduler.
"""

import itertools
from datetime import datetime
from typing import Any

import pytest
from system import until

BASE_MINUTES, MAX_HOURS, MULTIPLIER, THRESHOLD, RECOVERY = 0.02, 0.005, 2.0, 99.0, 3
BUSY_SECONDS = 15.0  # so much later than it is due a ping may be on a busy machine
SCENARIO = """\
gpus = 2
[[event]]
at = 2.0
gpu = 1
state = "lost"
for = 20.0
"""


def expected(pings: list[dict[str, Any]]) -> list[tuple[str, int, float]]:
    """Verdict, consecutive poor and interval in minutes that the policy demands after each."""
    poor = streak = 0
    demanded = []
    for earlier_answers, ping in enumerate(pings):
        assert ping["outcome"] == "answered", "this agent always answers"
        if not earlier_answers:
            verdict = "first"
        elif ping["uptime_percent"] >= THRESHOLD:
            verdict, poor, streak = "good", max(0, poor - 1), streak + 1
            poor = 0 if streak >= RECOVERY else poor
        else:
            verdict, poor, streak = "poor", poor + 1, 0
        demanded.append((verdict, poor, min(BASE_MINUTES * MULTIPLIER**poor, MAX_HOURS * 60)))
    return demanded


def test_history_shows_the_policy_to_the_letter(launch, tmp_path) -> None:
    scenario = tmp_path / "down-and-back.toml"
    scenario.write_text(SCENARIO)
    up = launch(
        "--scenario",
        str(scenario),
        AGENT_ID="agent-001",
        PING_BASE_INTERVAL_MINUTES=str(BASE_MINUTES),
        PING_MAX_INTERVAL_HOURS=str(MAX_HOURS),
        AGENT_GPU_CHECK_INTERVAL_SECONDS="0.1",
    ).ready()
    until(
        lambda: [p for p in up.pings("agent-001") if p["verdict"] == "poor"][1:],
        "two poor pings by timer",
    )
    by_timer = up.pings("agent-001")

    capped = MAX_HOURS * 60
    until(lambda: hand(up)["interval_minutes"] == capped, "the cap", step=1.05)
    until(lambda: hand(up)["verdict"] == "good", "the GPU is back", step=1.05)
    until(lambda: hand(up)["consecutive_poor_uptime"] == 0, "full recovery", step=1.05)
    pings = until(lambda: recovered(up.pings("agent-001")), "history has it all")

    assert [ping["ping_seq"] for ping in pings] == list(range(1, len(pings) + 1))
    seen = [
        (p["verdict"], p["consecutive_poor_uptime"], pytest.approx(p["interval_minutes"]))
        for p in pings
    ]
    assert seen == expected(pings)
    for earlier, later in itertools.pairwise(by_timer):
        waited = timestamp(later["pinged_at"]) - timestamp(earlier["pinged_at"])
        assert (
            earlier["interval_minutes"] * 60
            <= waited + 0.01
            < earlier["interval_minutes"] * 60 + BUSY_SECONDS
        )

    verdicts = [ping["verdict"] for ping in pings]
    counts = [ping["consecutive_poor_uptime"] for ping in pings]
    assert verdicts[0] == "first"
    assert max(counts) >= 4, "deep enough for the cap: 1.2 s doubled four times is above 18 s"
    back = verdicts.index("good", verdicts.index("poor"))
    assert verdicts[back : back + 3] == ["good", "good", "good"]
    deepest = counts[back - 1]
    assert counts[back : back + 3] == [deepest - 1, deepest - 2, 0], (
        "one step down a good ping, all at the third"
    )
    assert pings[back + 2]["interval_minutes"] == pytest.approx(BASE_MINUTES)


def hand(up: Any) -> dict[str, Any]:
    """A ping that counts. Less than a second after the last one, that one would be returned."""
    return dict(up.ping_by_hand("agent-001"))


def recovered(pings: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
    return (
        pings
        if pings and pings[-1]["consecutive_poor_uptime"] == 0 and pings[-1]["verdict"] == "good"
        else None
    )


def timestamp(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
