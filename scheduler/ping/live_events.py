"""Publishes live events: every outcome, registration and removal, on `gpuping.event.<id>`.

Pings come before live views. In each period of PERIOD_SECONDS only a limited number of outcomes is
published, far more than a person can follow, and most of that for outcomes that change a status.
The others are dropped and counted. That does no harm: views read everything again from time to
time.
"""

import asyncio
from collections import deque
from typing import Literal

from bus.clock import boottime, utc_now
from bus.contract import subjects
from bus.contract.messages import AgentState, encode
from bus.contract.questions import Agent, LiveEvent, ping_of
from bus.transport.connection import Client
from scheduler.fleet.lists.views import agent_view
from scheduler.ping.attempt import PingAttempt
from scheduler.policy import Policy

PERIOD_SECONDS = 0.05
OUTCOMES_A_PERIOD = 25  # 500 a second
STATUS_CHANGES_A_PERIOD = 100  # 2,000 a second: a whole fleet that fails or returns
OUTBOX_LIMIT = 10_000  # events kept while the bus is away


class LiveEvents:
    """Collects events and publishes those of one period together."""

    def __init__(self, client: Client, policy: Policy) -> None:
        self._client = client
        self._policy = policy
        self._outbox: deque[LiveEvent] = deque(maxlen=OUTBOX_LIMIT)
        self._wake = asyncio.Event()
        self._period_began = 0.0  # CLOCK_BOOTTIME, seconds
        self._published_in_period = 0
        self.dropped = 0

    def add_registry_change(
        self,
        kind: Literal["registered", "removed", "connected", "disconnected", "conflict"],
        agent_id: str,
        agent: Agent | None,
    ) -> None:
        """Adds the event of a registration or removal, or of a change of the agent's connections.

        That is a connection, its end, or two hosts under one identity (`conflict`).
        """
        event = LiveEvent(
            kind=kind,
            agent_id=agent_id,
            at=utc_now(),
            agent=agent,
        )
        self._add(event)

    def add_outcome(self, attempt: PingAttempt, state: AgentState) -> None:
        """Adds the event of an outcome that this scheduler wrote."""
        tracked = attempt.tracked
        budget = OUTCOMES_A_PERIOD
        if attempt.status_before != tracked.status:
            budget = STATUS_CHANGES_A_PERIOD
        if not self._within_budget(budget, boottime()):
            self.dropped += 1
            return
        now = utc_now()
        agent = None
        if tracked.registered:
            agent = agent_view(tracked, self._policy, now, attempt.report)
        event = LiveEvent(
            kind="ping",
            agent_id=state.agent_id,
            at=now,
            agent=agent,
            ping=ping_of(state, attempt.report),
            previous_status=attempt.status_before,
        )
        self._add(event)

    async def run(self) -> None:
        """Publishes until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            events = list(self._outbox)
            self._outbox.clear()
            if self._client.is_connected:
                await self._client.send_frames([_frame(event) for event in events])
            await asyncio.sleep(PERIOD_SECONDS)

    def _within_budget(self, budget: int, now: float) -> bool:
        if now - self._period_began > PERIOD_SECONDS:
            self._period_began = now
            self._published_in_period = 0
        if self._published_in_period >= budget:
            return False
        self._published_in_period += 1
        return True

    def _add(self, event: LiveEvent) -> None:
        self._outbox.append(event)
        self._wake.set()


def _frame(event: LiveEvent) -> bytes:
    """Returns a PUB of the NATS protocol."""
    subject = subjects.event(event.agent_id).encode()
    payload = encode(event)
    return b"PUB %b %d\r\n%b\r\n" % (subject, len(payload), payload)
