"""Sends pings and receives the answers: request, resend, time-out, and the kind of a miss.

There is no task and no timer per ping: all answers arrive in one inbox, and one loop checks all
deadlines every TICK_SECONDS.
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
from scheduler.ping.attempt import PingAttempt
from scheduler.ping.bus_monitor import BusMonitor
from scheduler.policy import Answered, Excused, Missed, PingResult

log = structlog.get_logger("scheduler.ping.pinger")

RESEND_SECONDS = 2.0
# After "no responders": an agent that reconnects is not subscribed for a moment.
NO_RESPONDERS_RESEND_SECONDS = 0.25
TICK_SECONDS = 0.05
REPORT_LIMIT_BYTES = 64 * 1024
SUM_TOLERANCE_SECONDS = 0.01
NONCE_BYTES = 16
NONCES_DRAWN_AT_ONCE = 256


class Pinger:
    """Calls `on_result` exactly once for every attempt that was given to `launch`."""

    def __init__(
        self,
        client: Client,
        bus_monitor: BusMonitor,
        timeout_seconds: float,
        on_result: Callable[[PingAttempt, PingResult], None],
    ) -> None:
        self._client = client
        self._bus_monitor = bus_monitor
        self._timeout_seconds = timeout_seconds
        self._on_result = on_result
        self._inbox = client.new_inbox()
        self._in_flight: dict[str, PingAttempt] = {}  # by ping_id
        self._next_nonce = nonces().__next__
        self.bad_messages = 0

    @property
    def in_flight(self) -> int:
        """How many pings await an answer."""
        return len(self._in_flight)

    async def run(self) -> None:
        """Receives answers and checks deadlines until cancelled.

        An unexpected failure while attempts expire is raised from here: those attempts would never
        get a result.
        """
        async with (
            self._client.listening(f"{self._inbox}.*", self._receive),
            asyncio.TaskGroup() as tasks,
        ):
            while True:
                now = boottime()
                expired = self._take_expired(now)
                if expired:
                    tasks.create_task(self._expire(expired, now))
                await self._resend(now)
                await asyncio.sleep(TICK_SECONDS)

    async def launch(self, attempts: list[PingAttempt]) -> None:
        """Starts these attempts and sends their pings in one go."""
        timestamp = utc_now()
        for attempt in attempts:
            attempt.start(timestamp, self._next_nonce())
            self._in_flight[attempt.ping_id] = attempt
        now = boottime()
        for attempt in attempts:
            attempt.first_sent_at = now
        await self._send(attempts, now)

    async def _send(self, attempts: list[PingAttempt], now: float) -> None:
        if not self._client.is_connected:
            # nats-py would queue the pings, and send all of them after the outage.
            for attempt in attempts:
                attempt.next_send_at = now + NO_RESPONDERS_RESEND_SECONDS
            return
        for attempt in attempts:
            attempt.next_send_at = now + RESEND_SECONDS
            attempt.no_responders = False
        try:
            frames = [self._frame(attempt) for attempt in attempts]
            await self._client.send_frames(frames)
        except nats.errors.Error as error:
            log.warning("ping_send_failed", pings=len(attempts), detail=str(error))

    def _frame(self, attempt: PingAttempt) -> bytes:
        """Returns a PUB of the NATS protocol."""
        subject = subjects.ping(attempt.agent_id).encode()
        reply = f"{self._inbox}.{attempt.ping_id}".encode()
        request = attempt.request
        return b"PUB %b %b %d\r\n%b\r\n" % (subject, reply, len(request), request)

    def _receive(self, message: Msg) -> None:
        ping_id = message.subject.rpartition(".")[2]
        attempt = self._in_flight.get(ping_id)
        if attempt is None:
            # The answer is late. Its window is not lost: the agent's next report covers it.
            return
        if message.headers and message.headers.get("Status") == "503":
            attempt.no_responders = True
            attempt.next_send_at = boottime() + NO_RESPONDERS_RESEND_SECONDS
            return
        del self._in_flight[ping_id]
        response_seconds = boottime() - attempt.first_sent_at
        attempt.response_ms = round(response_seconds * 1000.0, 3)
        self._on_result(attempt, self._result_of(attempt, message.data))

    def _result_of(self, attempt: PingAttempt, data: bytes) -> PingResult:
        try:
            report = read_report(data, attempt.agent_id, attempt.ping_id)
        except BadMessageError as error:
            self.bad_messages += 1
            log.warning(
                "report_rejected",
                agent_id=attempt.agent_id,
                detail=str(error),
                bytes=len(data),
            )
            return Missed("bad_report")
        attempt.report_bytes = data
        attempt.report = report
        return Answered(report.uptime_percent, report.gpu_available)

    def _take_expired(self, now: float) -> list[PingAttempt]:
        """Returns the attempts past their time-out, which are no longer in flight."""
        sent_before = now - self._timeout_seconds
        expired = [a for a in self._in_flight.values() if a.first_sent_at <= sent_before]
        for attempt in expired:
            del self._in_flight[attempt.ping_id]
        return expired

    async def _resend(self, now: float) -> None:
        """Sends the unanswered pings again whose time has come."""
        unanswered = [a for a in self._in_flight.values() if a.next_send_at <= now]
        if unanswered:
            await self._send(unanswered, now)

    async def _expire(self, attempts: list[PingAttempt], now: float) -> None:
        """Decides whether the agents missed these pings, or whether an outage of ours excuses them.

        The bus monitor knows of an outage that goes on only after the next round trip.
        """
        await self._bus_monitor.await_round_trip()
        for attempt in attempts:
            excused = self._bus_monitor.overlaps_outage(
                attempt.first_sent_at,
                now,
                no_responders=attempt.no_responders,
            )
            result: PingResult
            if excused:
                result = Excused("bus_outage")
            elif attempt.no_responders:
                result = Missed("no_responders")
            else:
                result = Missed("timeout")
            self._on_result(attempt, result)


def read_report(data: bytes, agent_id: str, ping_id: str) -> UptimeReport:
    """Returns the report of `agent_id` that answers the ping. Raises BadMessageError."""
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
    """Returns a function that makes ping ids, unique among all schedulers.

    Each is the last token of a reply subject.
    """
    prefix = secrets.token_hex(5)
    number = 0

    def next_id() -> str:
        nonlocal number
        number += 1
        return f"{prefix}-{number:x}"

    return next_id


def nonces() -> Iterator[str]:
    """Yields unpredictable nonces of 128 bits in hex, which the agent signs with its report.

    Several hundred are drawn at once, so that not every ping calls the system's generator.
    """
    size = 2 * NONCE_BYTES
    while True:
        drawn = secrets.token_hex(NONCE_BYTES * NONCES_DRAWN_AT_ONCE)
        for start in range(0, len(drawn), size):
            yield drawn[start : start + size]
