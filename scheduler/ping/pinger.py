"""Asks agents and judges their answers: request, resend, time-out, and what kind of miss it was.

No task and no timer per ping: one inbox for all answers, one tick for all deadlines.
"""

import asyncio
import secrets
from collections.abc import Callable, Iterator

import nats.errors
import structlog
from nats.aio.msg import Msg

from bus.clock import boottime, utc_now
from bus.contract import subjects
from bus.contract.messages import UptimeReport, decode
from bus.errors import BadMessageError
from bus.transport.connection import Client
from scheduler.ping.attempt import Flight
from scheduler.ping.bus_monitor import Pulse
from scheduler.policy import Answer, Event, Excuse, Miss

log = structlog.get_logger("scheduler.ping.pinger")

RESEND_SECONDS = 2.0
ASK_AGAIN_SECONDS = (
    0.25  # after "no responders": after a reconnection a subscription may be missing for a moment
)
TICK_SECONDS = 0.05
REPORT_LIMIT_BYTES = 64 * 1024
SUM_TOLERANCE_SECONDS = 0.01


class Pinger:
    """Every flight handed to `launch` comes back through `landed`, once, with what came of it."""

    def __init__(
        self,
        client: Client,
        pulse: Pulse,
        timeout_seconds: float,
        landed: Callable[[Flight, Event], None],
    ) -> None:
        self._client, self._pulse, self._timeout, self._landed = (
            client,
            pulse,
            timeout_seconds,
            landed,
        )
        self._inbox = client.new_inbox()
        self._flights: dict[str, Flight] = {}
        self._verifying: (
            asyncio.TaskGroup
        )  # one that fails ends the pinger loudly: its flights would hang for ever
        self._nonces = nonces().__next__
        self.bad_messages = 0

    @property
    def in_flight(self) -> int:
        """Pings that wait for an answer."""
        return len(self._flights)

    async def run(self) -> None:
        """Receives answers and watches deadlines until cancelled."""
        async with (
            self._client.listening(f"{self._inbox}.*", self._receive),
            asyncio.TaskGroup() as self._verifying,
        ):
            while True:
                await self._tick(boottime())
                await asyncio.sleep(TICK_SECONDS)

    async def launch(self, flights: list[Flight]) -> None:
        """Sends the pings, all in one go."""
        turn = utc_now()
        for flight in flights:
            flight.depart(turn, self._nonces())
            self._flights[flight.ping_id] = flight
        now = boottime()
        for flight in flights:
            flight.started = now
        await self._send(flights, now)

    async def _send(self, flights: list[Flight], now: float) -> None:
        connected = self._client.is_connected
        send_at = now + (RESEND_SECONDS if connected else ASK_AGAIN_SECONDS)
        for flight in flights:
            flight.send_at = send_at
            flight.no_responders = flight.no_responders and not connected
        if not connected:
            return  # nothing piles up for a bus that is away
        try:
            await self._client.send_frames([self._frame(flight) for flight in flights])
        except nats.errors.Error as error:
            log.warning("pings_not_sent", pings=len(flights), detail=str(error))

    def _frame(self, flight: Flight) -> bytes:
        """A PUB of the NATS protocol."""
        subject, reply = subjects.ping(flight.agent_id), f"{self._inbox}.{flight.ping_id}"
        return b"PUB %b %b %d\r\n%b\r\n" % (
            subject.encode(), reply.encode(), len(flight.request), flight.request
        )  # fmt: skip

    def _receive(self, message: Msg) -> None:
        flight = self._flights.get(message.subject.rpartition(".")[2])
        if flight is None:
            return  # late: the window was not lost, the next report covers it
        if message.headers and message.headers.get("Status") == "503":
            flight.no_responders = True
            flight.send_at = boottime() + ASK_AGAIN_SECONDS
            return
        del self._flights[flight.ping_id]
        flight.response_ms = round((boottime() - flight.started) * 1000.0, 3)
        self._landed(flight, self._judge(flight, message.data))

    def _judge(self, flight: Flight, data: bytes) -> Event:
        try:
            report = read_report(data, flight.agent_id, flight.ping_id)
        except BadMessageError as error:
            self.bad_messages += 1
            log.warning("bad_report", agent_id=flight.agent_id, detail=str(error), bytes=len(data))
            return Miss("bad_report")
        flight.report, flight.answer = data, report
        return Answer(report.uptime_percent, report.gpu_available)

    async def _tick(self, now: float) -> None:
        expired = [f for f in self._flights.values() if now - f.started >= self._timeout]
        for flight in expired:
            del self._flights[flight.ping_id]
        if expired:
            self._verifying.create_task(self._verify(expired, now))
        if unanswered := [f for f in self._flights.values() if now >= f.send_at]:
            await self._send(unanswered, now)

    async def _verify(self, flights: list[Flight], ended: float) -> None:
        """Before a miss is called, the bus must prove that it was there."""
        await self._pulse.prove()
        for flight in flights:
            reason = "no_responders" if flight.no_responders else "timeout"
            if self._pulse.excuses(flight.started, ended, no_responders=flight.no_responders):
                self._landed(flight, Excuse("bus_outage"))
            else:
                self._landed(flight, Miss(reason))


def read_report(data: bytes, agent_id: str, ping_id: str) -> UptimeReport:
    """The report, checked against the ping it answers. Raises BadMessageError."""
    if len(data) > REPORT_LIMIT_BYTES:
        raise BadMessageError(f"the report has {len(data)} bytes, more than {REPORT_LIMIT_BYTES}")
    report = decode(data, UptimeReport)
    if report.agent_id != agent_id:
        raise BadMessageError(f"the report is of another agent, {report.agent_id!r}")
    if report.ping_id not in {None, ping_id}:
        raise BadMessageError("the report answers another ping")
    seconds = report.seconds
    total = seconds.up + seconds.degraded + seconds.down + seconds.unknown + seconds.excused
    if abs(total - report.window.seconds) > SUM_TOLERANCE_SECONDS:
        raise BadMessageError(
            f"its seconds add up to {total:.3f}, its window has {report.window.seconds:.3f}"
        )
    return report


def new_ping_ids() -> Callable[[], str]:
    """Makes ids no other scheduler makes: they are the last token of a subject."""
    prefix, number = secrets.token_hex(5), 0

    def next_id() -> str:
        nonlocal number
        number += 1
        return f"{prefix}-{number:x}"

    return next_id


def nonces() -> Iterator[str]:
    """128 unpredictable bits each, for the agent's signature; drawn from the system a few hundred at a time."""
    while True:
        drawn = secrets.token_hex(16 * 256)
        yield from (drawn[start : start + 32] for start in range(0, len(drawn), 32))
