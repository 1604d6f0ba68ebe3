"""Answers pings, looks and questions about the agent itself, from memory: never waits for the probe's checks.

On the bus this is the NATS micro service `gpuping-agentd`; agent mode shows the same answers over HTTP.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from nats.micro.request import Request

from agentd.check_loop import Daemon, moment
from agentd.ledger import reports
from bus import clock
from bus.contract import subjects
from bus.contract.agent_answers import AgentHealth, BusHealth, GpuStatus, LedgerHealth
from bus.contract.messages import PingRequest, UptimeReport, decode
from bus.transport.micro_services import VERSION, Endpoint

ANSWERS_KEPT = 8  # a scheduler asks again every 2 s with the same ping_id, and gets the same bytes
DETAILS_SECONDS = 2.0


class Responder:
    """One agent's answers."""

    def __init__(self, agent_id: str, daemon: Daemon, bus: Callable[[], BusHealth]) -> None:
        self.agent_id = agent_id
        self._bus = bus
        self._daemon = daemon
        self._answers: OrderedDict[str, bytes] = OrderedDict()
        self._started = clock.boottime()
        self._started_at = clock.utc_now()

    def endpoints(self) -> list[Endpoint]:
        """What the micro service serves. Pings are answered in the order in which they come."""
        return [
            Endpoint("ping", subjects.ping(self.agent_id), self._on_ping, concurrent=False),
            Endpoint("gpu-status", subjects.gpu_status(self.agent_id), self._on_gpu_status),
            Endpoint("health", subjects.health(self.agent_id), self._on_health),
        ]

    async def _on_ping(self, request: Request) -> bytes:
        return self.answer(
            decode(request.data, PingRequest) if request.data.strip() else PingRequest()
        )

    async def _on_gpu_status(self, _request: Request) -> GpuStatus:
        return await self.gpu_status()

    async def _on_health(self, _request: Request) -> AgentHealth:
        return self.health()

    def answer(self, request: PingRequest) -> bytes:
        """The report's bytes. A ping heard before gets the bytes it got before; a look changes nothing."""
        if request.ping_id is None:
            return reports.encoded(self.report(request))
        answer = self._answers.get(request.ping_id)
        if answer is None:
            answer = self._answers[request.ping_id] = self._counted(request)
            if len(self._answers) > ANSWERS_KEPT:
                self._answers.popitem(last=False)
        return answer

    def _counted(self, request: PingRequest) -> bytes:
        now = moment()
        ledger = self._daemon.ledger
        report = reports.report(ledger, self.agent_id, request, now, VERSION)
        self._daemon.note(ledger.count(ledger.position(now)))
        return reports.encoded(report)

    def report(self, request: PingRequest) -> UptimeReport:
        """The report for this request as of now; changes nothing."""
        return reports.report(self._daemon.ledger, self.agent_id, request, moment(), VERSION)

    async def gpu_status(self) -> GpuStatus:
        """Each GPU, with the driver's details where they come in time."""
        details: dict[str, dict[str, Any]] = {}
        trouble = None
        try:
            async with asyncio.timeout(DETAILS_SECONDS):
                told = await self._daemon.probe.details()
            details = {str(gpu.get("uuid")): gpu for gpu in told}
        except TimeoutError:
            trouble = f"the driver did not answer within {DETAILS_SECONDS:g} s"
        except Exception as error:  # noqa: BLE001  # the ledger's part of the answer is owed all the same
            trouble = f"{type(error).__name__}: {error}"
        now = moment()
        report = reports.report(
            self._daemon.ledger, self.agent_id, PingRequest(window_seconds=0.0), now, VERSION
        )
        expected = self._daemon.ledger.expected
        return GpuStatus(
            agent_id=self.agent_id,
            gpu_available=report.gpu_available,
            simulated=self._daemon.probe.simulated,
            gpus=tuple(
                details.get(gpu.uuid, {})
                | {"uuid": gpu.uuid, "index": gpu.index, "name": gpu.name, "state": gpu.state}
                | {"reasons": gpu.reasons, "expected": gpu.uuid in expected}
                for gpu in report.gpus
            ),
            details_error=trouble,
            reported_at=reports.label(now.wall),
        )

    def health(self) -> AgentHealth:
        """The daemon itself."""
        daemon, ledger = self._daemon, self._daemon.ledger
        boot, now = clock.boottime(), moment()
        age = None if daemon.sampled_at is None else boot - daemon.sampled_at
        return AgentHealth(
            agent_id=self.agent_id,
            status="ok" if age is not None and age * 1000 <= ledger.good_for else "stale",
            agent_version=VERSION,
            boot_id=ledger.boot,
            session_id=ledger.session,
            simulated=daemon.probe.simulated,
            started_at=self._started_at,
            uptime_seconds=round(boot - self._started, 3),
            checks=ledger.known.checks,
            check_interval_seconds=daemon.interval,
            last_sample_age_seconds=None if age is None else round(age, 3),
            dropped_samples=daemon.dropped,
            ledger=LedgerHealth(
                ledger_id=ledger.began.ledger,
                began_at=reports.label(ledger.began.wall),
                seconds=ledger.position(now) / 1000,
                intervals=ledger.intervals(),
                events=len(ledger.events),
                file_bytes=daemon.keeper.bytes,
                trouble=daemon.keeper.trouble,
            ),
            bus=self._bus(),
            expected_gpus=ledger.expected,
            reported_at=reports.label(now.wall),
        )
