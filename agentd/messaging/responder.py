"""Answers pings, looks and questions about the agent itself, from memory.

On the bus this is the NATS micro service `gpuping-agentd`; agent mode gives the same answers over
HTTP. A ping that counts is answered once what it counted is on the disk.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Literal

import structlog
from msgspec.structs import replace
from nats.micro.request import Request

from agentd.check_loop import CheckLoop, read_clocks
from agentd.ledger import reports
from agentd.ledger.ledger import ClockReading
from bus import clock
from bus.background import wait_at_most
from bus.contract import subjects
from bus.contract.agent_answers import AgentHealth, BusHealth, GpuStatus, LedgerHealth
from bus.contract.messages import GpuReport, PingRequest, UptimeReport, decode
from bus.identity.ledger_heads import BROKEN, NEW_LEDGER
from bus.identity.signatures import GENESIS
from bus.identity.signed_report import HEADER, ReportSigner
from bus.transport.micro_services import VERSION, Answer, Endpoint

log = structlog.get_logger("agentd.responder")

# A scheduler sends an unanswered ping again every 2 s, byte for byte, and gets the same answer each
# time. A ping that it starts anew has another nonce, and gets an answer of its own.
ANSWERS_KEPT = 8
DETAILS_SECONDS = 2.0
# How long a ping without a time-out waits for the first look at the GPUs.
FIRST_LOOK_SECONDS = 2.0
# The part of a ping's time-out that is kept for the answer when it has waited.
ANSWER_SHARE = 0.2
LONGEST_ANSWER_SECONDS = 1.0


class Responder:
    """One agent's answers."""

    def __init__(
        self,
        agent_id: str,
        check_loop: CheckLoop,
        bus_health: Callable[[], BusHealth],
        signer: ReportSigner | None = None,
    ) -> None:
        """Without `signer` reports are not signed. Looks never are: they count nowhere."""
        self.agent_id = agent_id
        self._signer = signer
        self._check_loop = check_loop
        self._bus_health = bus_health
        self._answers: OrderedDict[bytes, Answer] = OrderedDict()  # by the request's bytes
        self._started = clock.boottime()
        self._started_at = clock.utc_now()

    def endpoints(self) -> list[Endpoint]:
        """What the micro service serves. Pings are answered in the order in which they come."""
        return [
            Endpoint(
                "ping",
                subjects.ping(self.agent_id),
                self._on_ping,
                concurrent=False,
            ),
            Endpoint("look", subjects.look(self.agent_id), self._on_look),
            Endpoint("gpu-status", subjects.gpu_status(self.agent_id), self._on_gpu_status),
            Endpoint("health", subjects.health(self.agent_id), self._on_health),
        ]

    async def _on_ping(self, request: Request) -> bytes | Answer:
        if not request.data.strip():
            return await self.look(PingRequest())
        asked = decode(request.data, PingRequest)
        if asked.ping_id is None:
            return await self.look(asked)
        return await self.answer(asked, request.data)

    async def _on_look(self, request: Request) -> bytes:
        """A look, whatever the request says: who may only look cannot make a ping of it."""
        asked = PingRequest()
        if request.data.strip():
            asked = decode(request.data, PingRequest)
        return await self.look(replace(asked, ping_id=None, nonce=None))

    async def _on_gpu_status(self, _request: Request) -> GpuStatus:
        return await self.gpu_status()

    async def _on_health(self, _request: Request) -> AgentHealth:
        return self.health()

    async def look(self, request: PingRequest) -> bytes:
        """The report's bytes for a request without a ping_id. Nothing changes by it."""
        await self._wait_for_first_look(request)
        return self._encoded(self.report(request), request)

    async def answer(self, request: PingRequest, request_bytes: bytes) -> Answer:
        """The report for a ping that counts. A repeated ping gets the bytes that it got before."""
        await self._wait_for_first_look(request)
        answer = self._answers.get(request_bytes)
        if answer is None:
            answer = await self._count_and_report(request, request_bytes)
            self._answers[request_bytes] = answer
            if len(self._answers) > ANSWERS_KEPT:
                self._answers.popitem(last=False)
        return answer

    async def _wait_for_first_look(self, request: PingRequest) -> None:
        """Waits within the ping's time-out, so that a host is not reported without its GPUs."""
        if request.timeout_seconds is not None:
            for_answer = min(request.timeout_seconds * ANSWER_SHARE, LONGEST_ANSWER_SECONDS)
            seconds = request.timeout_seconds - for_answer
        elif request.ping_id is not None:
            seconds = FIRST_LOOK_SECONDS
        else:
            return
        await wait_at_most(self._check_loop.first_look_ended, seconds)

    async def _count_and_report(self, request: PingRequest, request_bytes: bytes) -> Answer:
        """Makes a report that counts, and returns it when what it counted is on the disk.

        After a power cut, what the report counted must not be counted again.
        """
        ledger = self._check_loop.ledger
        if request.expected_gpus is not None:
            self._check_loop.queue(ledger.enroll(request.expected_gpus))
        extends = self._compare_with(request.ledger_heads)
        clocks = read_clocks()
        report = self._report_at(request, clocks)
        self._check_loop.queue(ledger.count(ledger.position(clocks)))
        await self._check_loop.sync()
        payload = self._encoded(report, request)
        headers = {}
        if self._signer is not None:
            headers[HEADER] = self._signer.sign(
                request,
                request_bytes,
                report,
                payload,
                self._check_loop.store.synced_head,
                extends,
            )
        return Answer(payload, headers)

    def _compare_with(self, heads: tuple[str, ...]) -> str:
        """Says what the ledger is to the heads that the scheduler holds.

        Where it is not the ledger of the last report, only what this process saw itself counts.
        """
        if self._signer is None:
            return GENESIS
        store = self._check_loop.store
        extends = store.extension(heads)
        if extends in {BROKEN, NEW_LEDGER}:
            self._check_loop.queue(store.ledger.distrust())
        if extends == BROKEN:
            log.error(
                "ledger_edited",
                file=str(store.path),
                recorded=heads[0],
                action="what this process did not see itself counts as unknown",
            )
        return extends

    def report(self, request: PingRequest) -> UptimeReport:
        """The report for this request as of now; changes nothing."""
        return self._report_at(request, read_clocks())

    def _report_at(
        self,
        request: PingRequest,
        clocks: ClockReading,
    ) -> UptimeReport:
        return reports.report(
            self._check_loop.ledger,
            self.agent_id,
            request,
            clocks,
            VERSION,
            simulated=self._check_loop.probe.simulated,
        )

    def _encoded(self, report: UptimeReport, request: PingRequest) -> bytes:
        return reports.encoded(report, reports.owed(self._check_loop.ledger, request))

    async def gpu_status(self) -> GpuStatus:
        """Each GPU, with the driver's details where they come within DETAILS_SECONDS."""
        details: dict[str, dict[str, Any]] = {}
        error_text = None
        try:
            async with asyncio.timeout(DETAILS_SECONDS):
                for gpu in await self._check_loop.probe.details():
                    details[str(gpu.get("uuid"))] = gpu
        except TimeoutError:
            error_text = f"the driver did not answer within {DETAILS_SECONDS:g} s"
        except Exception as error:  # noqa: BLE001  # the ledger's part is answered all the same
            error_text = f"{type(error).__name__}: {error}"
        report = self.report(PingRequest(window_seconds=0.0))
        gpus = [self._gpu_with_details(gpu, details.get(gpu.uuid, {})) for gpu in report.gpus]
        return GpuStatus(
            agent_id=self.agent_id,
            gpu_available=report.gpu_available,
            simulated=self._check_loop.probe.simulated,
            gpus=tuple(gpus),
            details_error=error_text,
            failure=report.failure,
            reported_at=report.window.until,
        )

    def _gpu_with_details(
        self,
        gpu: GpuReport,
        details: dict[str, Any],
    ) -> dict[str, Any]:
        known = {
            "uuid": gpu.uuid,
            "index": gpu.index,
            "name": gpu.name,
            "state": gpu.state,
            "reasons": gpu.reasons,
            "expected": gpu.uuid in self._check_loop.ledger.expected,
        }
        return details | known

    def health(self) -> AgentHealth:
        """The health of the daemon itself.

        `ok` while samples arrive, `failed` while they show no GPU for a failure, else `stale`.
        """
        check_loop = self._check_loop
        ledger = check_loop.ledger
        clocks = read_clocks()
        boottime = clock.boottime()
        failure = ledger.failure_at(ledger.position(clocks))
        status: Literal["ok", "stale", "failed"] = "stale"
        sample_age = None
        if check_loop.sampled_at is not None:
            exact_age = boottime - check_loop.sampled_at
            sample_age = round(exact_age, 3)
            if exact_age * 1000 <= ledger.longest_gap:
                status = "ok" if failure is None else "failed"
        return AgentHealth(
            agent_id=self.agent_id,
            status=status,
            agent_version=VERSION,
            boot_id=ledger.boot,
            session_id=ledger.session,
            simulated=check_loop.probe.simulated,
            started_at=self._started_at,
            uptime_seconds=round(boottime - self._started, 3),
            checks=ledger.progress.checks,
            check_interval_seconds=check_loop.interval,
            last_sample_age_seconds=sample_age,
            dropped_samples=check_loop.dropped,
            ledger=LedgerHealth(
                ledger_id=ledger.created.ledger,
                began_at=reports.label(ledger.created.wall),
                seconds=ledger.position(clocks) / 1000,
                intervals=ledger.interval_count(),
                events=len(ledger.events),
                file_bytes=check_loop.store.bytes,
                trouble=check_loop.store.write_error,
            ),
            bus=self._bus_health(),
            expected_gpus=ledger.expected,
            reported_at=reports.label(clocks.wall),
            failure=failure,
        )
