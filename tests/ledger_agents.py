"""Test agents that keep a ledger, behave as they are told, and remember all their answers.

What they remember is the evidence against which the history is audited
(`tests/scheduler_audit.py`).
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from bus.clock import boottime
from bus.contract import subjects
from bus.contract.messages import (
    GpuReport,
    PingRequest,
    Seconds,
    UptimeReport,
    Window,
    decode,
    encode,
)
from bus.settings import Settings
from bus.transport import connection

Manner = Literal[
    "answering", "no_gpu", "nothing_to_judge", "silent", "absent", "garbage", "other_agent"
]
BAD: frozenset[Manner] = frozenset({"garbage", "other_agent"})
UNHEARD: frozenset[Manner] = frozenset({"silent", "absent"})


class AgentAnswer(NamedTuple):
    """What an agent said to one ping, and when; positions of its ledger in milliseconds."""

    at: datetime
    data: bytes
    uptime: float | None
    gpu_available: bool
    since: int
    until: int
    mark: str
    valid: bool
    up: int


class Asked(NamedTuple):
    """When a ping was first heard, and what it asked."""

    at: datetime
    request: PingRequest


class LedgerAgent:
    """One host.

    `up` is the share of each window that its GPU was up; the manner can change at any time.
    """

    def __init__(self, client: connection.Client, agent_id: str) -> None:
        self._client, self.agent_id = client, agent_id
        self.up = 1.0
        self.manners: list[tuple[datetime, Manner]] = []
        self.asked: dict[str, Asked] = {}
        self.answers: dict[str, AgentAnswer] = {}
        self._subscription: Subscription | None = None

    @property
    def manner(self) -> Manner:
        return self.manners[-1][1]

    async def behave(self, manner: Manner, up: float = 1.0) -> None:
        """From now on; in force on the bus when this returns."""
        self.up = up
        if manner == "absent":
            self.manners.append((datetime.now(UTC), manner))
            if self._subscription:
                await self._subscription.unsubscribe()
                self._subscription = None
        elif self._subscription is None:
            self._subscription = await self._client.subscribe(
                subjects.ping(self.agent_id), cb=self._hear
            )
        await self._client.flush()
        self.manners.append((datetime.now(UTC), manner))

    def manners_between(self, since: datetime, until: datetime) -> set[Manner]:
        """All that held at some moment of the stretch."""
        ends = [at for at, _ in self.manners[1:]] + [datetime.max.replace(tzinfo=UTC)]
        return {
            m
            for (at, m), end in zip(self.manners, ends, strict=True)
            if at <= until and end >= since
        }

    async def _hear(self, message: Msg) -> None:
        request, now = decode(message.data, PingRequest), datetime.now(UTC)
        assert request.ping_id
        self.asked.setdefault(request.ping_id, Asked(now, request))
        if self.manner in UNHEARD:
            return
        answer = self.answers.get(
            request.ping_id
        )  # a ping heard before gets the bytes that it got before
        if answer is None:
            answer = self.answers[request.ping_id] = self._answer(request, now)
        await message.respond(answer.data)

    def _answer(self, request: PingRequest, now: datetime) -> AgentAnswer:
        until = round(boottime() * 1000)
        since = self._since(request, until)
        report = self._report(request, now, until - since, f"{self.agent_id}-ledger.{until}")
        data = b"{ garbage" if self.manner == "garbage" else encode(report)
        valid = self.manner not in BAD
        mark = report.window.mark or ""
        up = round(report.seconds.up * 1000)
        return AgentAnswer(
            now, data, report.uptime_percent, report.gpu_available, since, until, mark, valid, up
        )

    def _since(self, request: PingRequest, until: int) -> int:
        if request.since_mark is not None:
            ledger, _, position = request.since_mark.partition(".")
            assert ledger == f"{self.agent_id}-ledger"
            return int(position)
        assert request.window_seconds is not None
        return until - round(request.window_seconds * 1000)

    def _report(
        self, request: PingRequest, now: datetime, milliseconds: int, mark: str
    ) -> UptimeReport:
        length = milliseconds / 1000
        up = 0 if self.manner == "no_gpu" else round(milliseconds * self.up)
        seconds = Seconds(up=up / 1000, down=(milliseconds - up) / 1000)
        percent = 100.0 * up / milliseconds if milliseconds else None
        if self.manner == "nothing_to_judge":
            seconds, percent = Seconds(excused=length), None
        gpu = GpuReport(
            uuid=f"GPU-{self.agent_id}", index=0, name="Test GPU", state="up", seconds=seconds
        )
        return UptimeReport(
            agent_id="somebody-else" if self.manner == "other_agent" else self.agent_id,
            boot_id="boot",
            session_id="session",
            window=Window(
                since=now - timedelta(seconds=length), until=now, seconds=length, mark=mark
            ),
            uptime_percent=percent,
            seconds=seconds,
            gpu_available=self.manner != "no_gpu",
            gpus=() if self.manner == "no_gpu" else (gpu,),
            reported_at=now,
            ping_id=request.ping_id,
            nonce=request.nonce,
        )


class LedgerAgents(dict[str, LedgerAgent]):
    """Agents by id, on one connection."""

    def __init__(self, client: connection.Client) -> None:
        super().__init__()
        self.client = client

    async def add(
        self, agent_id: str, manner: Manner = "answering", up: float = 1.0
    ) -> LedgerAgent:
        agent = self[agent_id] = LedgerAgent(self.client, agent_id)
        await agent.behave(manner, up)
        return agent


@asynccontextmanager
async def ledger_agents(settings: Settings) -> AsyncIterator[LedgerAgents]:
    """Agents on a connection of their own."""
    async with connection.connected(settings, "ledger-agents") as client:
        yield LedgerAgents(client)
