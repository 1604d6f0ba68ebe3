"""Live events: every outcome, registration and removal, on `gpuping.event.<id>`; lost without harm.

Pings come first, live views second: each moment a budget is told, far more than a person can follow, most of it kept
for outcomes that change a status; the others are counted as dropped. Views read everything anew now and then.
"""

import asyncio
from collections import deque
from typing import Literal

from bus.clock import boottime, utc_now
from bus.contract import subjects
from bus.contract.messages import AgentState, encode
from bus.contract.questions import Agent, Event, ping_of
from bus.transport.connection import Client
from scheduler.fleet.views import agent_view
from scheduler.ping.attempt import Flight
from scheduler.policy import Policy

MOMENT_SECONDS = 0.05
EVENTS_A_MOMENT = 25  # 500 a second
CHANGES_A_MOMENT = 100  # 2,000 a second: a whole fleet that comes or goes
LONGEST_OUTBOX = 10_000  # while the bus is away


class Events:
    """Collects events and sends those of a moment together."""

    def __init__(self, client: Client, policy: Policy) -> None:
        self._client, self._policy = client, policy
        self._outbox: deque[Event] = deque(maxlen=LONGEST_OUTBOX)
        self._filled = asyncio.Event()
        self._moment = 0.0
        self._told = 0
        self.dropped = 0

    def registry(
        self, kind: Literal["registered", "removed"], agent_id: str, agent: Agent | None
    ) -> None:
        """An agent came or went."""
        self._put(Event(kind=kind, agent_id=agent_id, at=utc_now(), agent=agent))

    def outcome(self, flight: Flight, state: AgentState) -> None:
        """A ping came to its end."""
        changed = flight.status_before != flight.tracked.status
        if not self._within_budget(CHANGES_A_MOMENT if changed else EVENTS_A_MOMENT, boottime()):
            self.dropped += 1
            return
        tracked, now = flight.tracked, utc_now()
        agent = (
            agent_view(tracked, self._policy, now, flight.answer) if tracked.registered else None
        )
        ping = ping_of(state, flight.answer)
        before = flight.status_before
        self._put(
            Event(
                kind="ping",
                agent_id=state.agent_id,
                at=now,
                agent=agent,
                ping=ping,
                previous_status=before,
            )
        )

    async def run(self) -> None:
        """Sends until cancelled."""
        while True:
            await self._filled.wait()
            self._filled.clear()
            events = list(self._outbox)
            self._outbox.clear()
            if self._client.is_connected:
                await self._client.send_frames([_frame(event) for event in events])
            await asyncio.sleep(MOMENT_SECONDS)

    def _within_budget(self, budget: int, now: float) -> bool:
        if now - self._moment > MOMENT_SECONDS:
            self._moment, self._told = now, 0
        if self._told >= budget:
            return False
        self._told += 1
        return True

    def _put(self, event: Event) -> None:
        self._outbox.append(event)
        self._filled.set()


def _frame(event: Event) -> bytes:
    """A PUB of the NATS protocol."""
    payload = encode(event)
    return b"PUB %b %d\r\n%b\r\n" % (subjects.event(event.agent_id).encode(), len(payload), payload)
