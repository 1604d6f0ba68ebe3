"""A fleet whose agents have answered before: each has a state and the timer of its next ping.

A fleet that was only enrolled has no states, and states take most of the memory of a million
agents. They are made by the scheduler's own rules and writers, so that they are what it would have
written.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec.structs import replace

from bench.fleet import agent_id
from bench.responder import answer
from bus.contract import subjects
from bus.contract.durations import Durations
from bus.contract.messages import (
    AgentEntry,
    AnsweredPing,
    PingRequest,
    UptimeReport,
    decode,
    encode,
)
from bus.transport.batch import MAX_MESSAGES, Write, commit
from bus.transport.connection import Client
from scheduler.fleet.tracked import Tracked
from scheduler.ping.accounting.admission import Admitted
from scheduler.ping.accounting.timestamps import whole_millisecond
from scheduler.ping.attempt import PingAttempt
from scheduler.ping.next_state import next_state, writes
from scheduler.policy import Answered, Policy

KEYS_EACH = 3
TIMEOUT_SECONDS = 5.0


async def enrol(
    client: Client,
    agents: int,
    due_at: Callable[[int], datetime],
    policy: Policy,
    progress: Callable[[int], None],
    labels: Callable[[int], dict[str, Any]] | None = None,
) -> None:
    """Agents 0..n-1, each with one answered ping behind it and due again when `due_at` says.

    `labels` says what each has as metadata. An agent whose due time is further away than one
    interval was pinged just now, and has a longer interval until its next ping: a scheduler moves a
    due time that is later than the interval in the state to the end of that interval.
    """
    step = MAX_MESSAGES // KEYS_EACH
    for first in range(0, agents, step):
        numbers = range(first, min(first + step, agents))
        batch: list[Write] = []
        for number in numbers:
            metadata = labels(number) if labels else {}
            batch += _veteran(number, due_at(number), policy, metadata)
        await commit(client, batch, timeout=60)
        progress(len(numbers))


def _veteran(
    number: int, due_at: datetime, policy: Policy, metadata: dict[str, Any]
) -> list[Write]:
    name = agent_id(number)
    now = whole_millisecond(datetime.now(UTC))
    pinged_at = min(due_at - timedelta(seconds=policy.base_seconds), now)
    policy = replace(policy, base_seconds=(due_at - pinged_at).total_seconds())
    tracked = Tracked()
    tracked.entry = AgentEntry(
        agent_id=name,
        registered_at=pinged_at,
        enrolled_at=pinged_at,
        metadata=metadata,
        expected_gpus=(f"GPU-{number:032x}",),
    )
    attempt = PingAttempt(name, tracked, f"veteran-{number:x}", pinged_at)
    sent = AnsweredPing(boot_id="bench", boottime=0.0)
    attempt.start(pinged_at, f"{number:032x}", sent, TIMEOUT_SECONDS)
    request = PingRequest(
        ping_id=attempt.ping_id,
        window_seconds=policy.base_seconds,
        expected_gpus=tracked.entry.expected_gpus,
    )
    attempt.report_bytes = answer(name, request, pinged_at)
    attempt.report = decode(attempt.report_bytes, UptimeReport)
    attempt.response_ms = 0.5
    up = Durations.from_seconds(attempt.report.seconds)
    attempt.admitted = Admitted(up, dict.fromkeys(tracked.entry.expected_gpus, up))
    state = next_state(attempt, Answered(100.0, gpu_available=True), pinged_at, policy)
    return [Write(subjects.agent_key(name), encode(tracked.entry)), *writes(attempt, state)]
