"""Sends pings and receives the answers: request, resend, time-out, and the kind of a miss.

There is no task and no timer per ping: all answers arrive in one inbox, and one loop checks all
deadlines every TICK_SECONDS.
"""

import asyncio
import secrets
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import NamedTuple

import nats.errors
import structlog
from msgspec.structs import replace
from nats.aio.msg import Msg

from bus.clock import boottime
from bus.contract import subjects
from bus.contract.messages import UptimeReport, decode
from bus.contract.remarks import LEDGER_EDITED
from bus.errors import BadMessageError
from bus.identity.ledger_heads import LedgerEditedError
from bus.identity.signed_report import HEADER, BadSignatureError, Expected
from bus.transport.bus_clock import BusClock
from bus.transport.connection import Client
from scheduler.ping.accounting.admission import Refused
from scheduler.ping.accounting.timestamps import whole_millisecond
from scheduler.ping.accounting.window import admit_report, excused_spans, measured_window
from scheduler.ping.attempt import PingAttempt
from scheduler.ping.outages.bus_monitor import BusMonitor
from scheduler.ping.outages.server_monitor import ServerMonitor
from scheduler.ping.outages.standstill import StandstillWatch
from scheduler.ping.signature_checks import CheckResult, SignatureChecks, SignedAnswer
from scheduler.policy import MAINTENANCE, Answered, Excused, Missed, PingResult

log = structlog.get_logger("scheduler.ping.pinger")

RESEND_SECONDS = 2.0
# After "no responders": an agent that reconnects is not subscribed for a moment.
NO_RESPONDERS_RESEND_SECONDS = 0.25
TICK_SECONDS = 0.05
REPORT_LIMIT_BYTES = 64 * 1024
SUM_TOLERANCE_SECONDS = 0.01
BAD_REPORT = "bad_report"  # the reason of a miss whose answer is no report of this ping
NONCE_BYTES = 16
NONCES_DRAWN_AT_ONCE = 256


class PingLimits(NamedTuple):
    """`in_flight` is PING_MAX_CONCURRENT_AGENTS, `timeout_seconds` that of a ping.

    `believes_unheard`: what a host says of the time between two missed pings is believed
    (PING_UNHEARD_TIME). `fleet` is the public key of the fleet's account, None without identities;
    `requires_signed`: hosts whose key is not known are not believed (GPUPING_REQUIRE_SIGNED);
    `unsigned_until`: nor are they from then on (GPUPING_UNSIGNED_UNTIL).
    """

    in_flight: int
    timeout_seconds: float
    believes_unheard: bool = False
    fleet: str | None = None
    requires_signed: bool = False
    unsigned_until: datetime | None = None

    def believe_unsigned(self, now: Callable[[], datetime]) -> bool:
        """Whether a host counts whose key is not known. The clock is read where it matters."""
        if self.requires_signed:
            return False
        return self.unsigned_until is None or now() < self.unsigned_until


class Pinger:
    """Calls `on_result` exactly once for every attempt that was given to `launch`.

    `instance` is the name of this scheduler. `on_late` is called with what comes for a ping that is
    not awaited any more.
    """

    def __init__(
        self,
        client: Client,
        instance: str,
        bus_monitor: BusMonitor,
        server_monitor: ServerMonitor,
        bus_clock: BusClock,
        limits: PingLimits,
        on_result: Callable[[PingAttempt, PingResult], None],
        on_late: Callable[[Msg], None],
    ) -> None:
        self.standstills = StandstillWatch()
        self._client = client
        self._bus_monitor = bus_monitor
        self._server_monitor = server_monitor
        self._bus_clock = bus_clock
        self._limits = limits
        self._timeout_seconds = limits.timeout_seconds
        self._on_result = on_result
        self._on_late = on_late
        self._signature_checks = SignatureChecks(self._on_checked)
        self._inbox = subjects.ping_inbox(instance)
        self._in_flight: dict[str, PingAttempt] = {}  # by ping_id
        self._expiring: dict[str, PingAttempt] = {}  # by ping_id: past their time-out, undecided
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
        try:
            async with (
                self._client.listening(f"{self._inbox}.*", self._receive),
                asyncio.TaskGroup() as tasks,
            ):
                tasks.create_task(self.standstills.run())
                while True:
                    now = boottime()
                    expired = self._take_expired(now)
                    if expired:
                        tasks.create_task(self._expire(expired, now))
                    await self._resend(now)
                    await asyncio.sleep(TICK_SECONDS)
        finally:
            self._signature_checks.close()

    async def launch(self, attempts: list[PingAttempt]) -> None:
        """Starts these attempts and sends their pings in one go."""
        timestamp = whole_millisecond(self._bus_clock.now())
        sent = self._bus_clock.reading()
        now = sent.boottime
        clamped_ms = self._bus_clock.clamped_ms()
        for attempt in attempts:
            attempt.clamped_ms = clamped_ms
            attempt.start(timestamp, self._next_nonce(), sent, self._timeout_seconds)
            attempt.first_sent_at = now
            self._in_flight[attempt.ping_id] = attempt
        await self._send(attempts, now)

    def abandon(self) -> None:
        """Forgets what is in flight; no result is given for it."""
        self._in_flight.clear()
        self._expiring.clear()

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
            self._receive_late(ping_id, message)
            return
        if message.headers and message.headers.get("Status") == "503":
            attempt.no_responders = True
            attempt.next_send_at = boottime() + NO_RESPONDERS_RESEND_SECONDS
            return
        response_seconds = boottime() - attempt.first_sent_at
        attempt.response_ms = round(response_seconds * 1000.0, 3)
        self._take_answer(attempt, message)

    def _take_answer(self, attempt: PingAttempt, message: Msg) -> None:
        header = (message.headers or {}).get(HEADER)
        if header is None or attempt.signing_key is None:
            self._settle(attempt, self._result_of(attempt, message.data))
        else:
            self._have_checked(attempt, attempt.signing_key, message.data, header)

    def _is_open(self, attempt: PingAttempt) -> bool:
        """Whether the attempt awaits its result, be it past its time-out or not."""
        ping_id = attempt.ping_id
        return attempt in (self._in_flight.get(ping_id), self._expiring.get(ping_id))

    def _settle(self, attempt: PingAttempt, result: PingResult | None) -> None:
        """Gives an attempt its result. None: it goes on, for there may be a better answer."""
        if result is None:
            return
        ping_id = attempt.ping_id
        awaiting = self._in_flight.pop(ping_id, None) or self._expiring.pop(ping_id, None)
        if awaiting is not None:
            self._on_result(awaiting, result)

    def _have_checked(
        self,
        attempt: PingAttempt,
        signing_key: str,
        data: bytes,
        header: str,
    ) -> None:
        """Has the signature of an answer checked. Meanwhile the attempt does not expire."""
        try:
            report = read_report(data)
        except BadMessageError as error:
            self._settle(attempt, self._refused(attempt, data, BAD_REPORT, str(error)))
            return
        if not _answers(report, attempt):
            attempt.reject("ping_wrong", "it answers another ping", data)
            return
        expected = Expected(
            fleet=self._limits.fleet,
            key=signing_key,
            seq=attempt.seq,
            previous=attempt.previous,
            request=attempt.request,
        )
        attempt.answers_in_check += 1
        took_ms = attempt.response_ms or 0.0
        answer = SignedAnswer(attempt, report, data, header, expected, took_ms)
        self._signature_checks.add(answer)

    def _on_checked(self, answer: SignedAnswer, checked: CheckResult) -> None:
        attempt = answer.attempt
        attempt.answers_in_check -= 1
        is_of_this_start = answer.expected.request is attempt.request
        if not is_of_this_start or not self._is_open(attempt):
            return  # an answer before this one was the right one, or the attempt was abandoned
        if isinstance(checked, BadSignatureError):
            attempt.reject(checked.reason, str(checked), answer.data)
            return
        attempt.signature = checked
        attempt.response_ms = answer.response_ms
        try:
            attempt.ledger_remark = checked.ledger_remark(attempt.ledger_heads)
        except LedgerEditedError as error:
            attempt.ledger_remark = LEDGER_EDITED
            result: PingResult = self._refused(attempt, answer.data, BAD_REPORT, str(error))
        else:
            result = self._admit(attempt, answer.report, answer.data)
        self._settle(attempt, result)

    def _receive_late(self, ping_id: str, message: Msg) -> None:
        """Takes an answer to a ping that is past its time-out.

        While it is not decided yet, the answer counts: it was on its way to us when this process
        looked at the clock, and that we were busy is not the agent's fault. Where we were busy for
        as long as the gap that the bus monitor takes for an outage, the ping is excused instead.
        """
        expiring = self._expiring.get(ping_id)
        if expiring is None:
            self._on_late(message)
            return
        if message.headers and message.headers.get("Status") == "503":
            return
        late_seconds = boottime() - expiring.first_sent_at
        if late_seconds > self._timeout_seconds + self._bus_monitor.gap_seconds:
            return
        expiring.response_ms = round(late_seconds * 1000.0, 3)
        self._take_answer(expiring, message)

    def _result_of(self, attempt: PingAttempt, data: bytes) -> PingResult | None:
        """Returns the result that an answer without a signature brings about.

        Returns None where it does not count: the one that was asked for may still come.
        """
        try:
            report = read_report(data)
        except BadMessageError as error:
            return self._refused(attempt, data, BAD_REPORT, str(error))
        if not _answers(report, attempt):
            attempt.reject("ping_wrong", "it answers another ping", data)
            return None
        if attempt.signing_key is not None:
            attempt.reject("unsigned", "it is not signed", data)
            return None
        if not attempt.is_by_http and not self._limits.believe_unsigned(self._bus_clock.now):
            attempt.reject("key_unknown", "no key of this host is known: enrol it", data)
            return None
        return self._admit(attempt, report, data)

    def _admit(
        self,
        attempt: PingAttempt,
        report: UptimeReport,
        data: bytes,
    ) -> PingResult:
        """Fits the report into the window that was measured, or refuses it."""
        try:
            check_sum(report)
        except BadMessageError as error:
            return self._refused(attempt, data, BAD_REPORT, str(error))
        assert attempt.pinged_at  # noqa: S101  # a ping that is answered was started
        attempt.sent = replace(attempt.sent, answer_ms=attempt.response_ms or 0.0)
        window = measured_window(
            attempt.tracked,
            attempt.window_start,
            report,
            attempt.sent,
            attempt.pinged_at,
            attempt.excused,
            believes_unheard=self._limits.believes_unheard,
            clamped_ms=attempt.clamped_ms,
            stood_still=self.standstills.seconds_within,
        )
        admitted = admit_report(window, report)
        if isinstance(admitted, Refused):
            return self._refused(attempt, data, admitted.reason, "it cannot have happened")
        attempt.report_bytes = data
        attempt.report = report
        attempt.admitted = admitted
        attempt.excused_spans = excused_spans(window)
        return Answered(
            admitted.host.uptime_percent,
            report.gpu_available,
            in_maintenance=attempt.tracked.in_maintenance(attempt.pinged_at),
        )

    def _refused(
        self,
        attempt: PingAttempt,
        data: bytes,
        reason: str,
        detail: str,
    ) -> Missed:
        """Counts an answer that is no report as a miss, and keeps it as evidence."""
        self.bad_messages += 1
        attempt.refused_report = data[:REPORT_LIMIT_BYTES]
        attempt.response_ms = None
        log.warning(
            "report_refused",
            agent_id=attempt.agent_id,
            reason=reason,
            detail=detail,
            bytes=len(data),
        )
        return Missed(reason)

    def _take_expired(self, now: float) -> list[PingAttempt]:
        """Returns the attempts past their time-out, which are no longer in flight.

        One whose answer is being checked is left: the answer came in time.
        """
        sent_before = now - self._timeout_seconds
        expired = []
        for attempt in self._in_flight.values():
            if attempt.first_sent_at <= sent_before and not attempt.answers_in_check:
                expired.append(attempt)
        for attempt in expired:
            del self._in_flight[attempt.ping_id]
            self._expiring[attempt.ping_id] = attempt
        return expired

    async def _resend(self, now: float) -> None:
        """Sends the unanswered pings again whose time has come."""
        unanswered = [a for a in self._in_flight.values() if a.next_send_at <= now]
        if unanswered:
            await self._send(unanswered, now)

    async def _expire(self, attempts: list[PingAttempt], now: float) -> None:
        """Decides whether the agents missed these pings, or whether an outage of ours excuses them.

        The monitors know of an outage that goes on only after the next round trip. Whatever the
        server had sent us before is received with it, answers to these pings included.
        """
        await self._bus_monitor.await_round_trip()
        await self._server_monitor.await_answer()
        while any(attempt.answers_in_check for attempt in attempts):  # noqa: ASYNC110  # milliseconds
            await asyncio.sleep(TICK_SECONDS)
        for attempt in attempts:
            if self._expiring.pop(attempt.ping_id, None) is None:
                continue  # its answer had come meanwhile
            excused = self._bus_monitor.overlaps_outage(
                attempt.first_sent_at,
                now,
                no_responders=attempt.no_responders,
            ) or self._server_monitor.overlaps_outage(attempt.first_sent_at, now)
            attempt.response_ms = None
            result: PingResult
            if excused:
                result = Excused("bus_outage")
            elif attempt.host_joined_anew:
                result = Excused("joined_anew")
            elif attempt.pinged_at and attempt.tracked.in_maintenance(attempt.pinged_at):
                result = Excused(MAINTENANCE, retries=False)
            elif attempt.rejected:
                self.bad_messages += 1
                attempt.refused_report = attempt.rejected_report
                log.warning("answers_ignored", agent_id=attempt.agent_id, detail=attempt.rejected)
                result = Missed(BAD_REPORT)
            elif attempt.no_responders:
                result = Missed("no_responders")
            else:
                result = Missed("timeout")
            if isinstance(result, Missed):
                attempt.may_be_answered_late = True
            self._on_result(attempt, result)


def read_report(data: bytes) -> UptimeReport:
    """Returns the decoded report. Raises BadMessageError."""
    if len(data) > REPORT_LIMIT_BYTES:
        raise BadMessageError(f"the report has {len(data)} bytes, more than {REPORT_LIMIT_BYTES}")
    return decode(data, UptimeReport)


def check_sum(report: UptimeReport) -> None:
    """Raises BadMessageError unless the report's seconds add up to its window."""
    seconds = report.seconds
    total = seconds.up + seconds.degraded + seconds.down + seconds.unknown + seconds.excused
    if abs(total - report.window.seconds) > SUM_TOLERANCE_SECONDS:
        raise BadMessageError(
            f"its seconds add up to {total:.3f}, its window has {report.window.seconds:.3f}"
        )


def _answers(report: UptimeReport, attempt: PingAttempt) -> bool:
    """Returns whether the report was made for this very ping, by the agent that was asked."""
    if report.agent_id != attempt.agent_id:
        return False
    return report.ping_id == attempt.ping_id and report.nonce == attempt.nonce


def new_ping_ids(instance: str) -> Callable[[], str]:
    """Returns a function that makes ping ids, unique among all schedulers.

    Each begins with the name of its scheduler, and is the last token of a reply subject.
    """
    number = 0

    def next_id() -> str:
        nonlocal number
        number += 1
        return f"{instance}-{number:x}"

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
