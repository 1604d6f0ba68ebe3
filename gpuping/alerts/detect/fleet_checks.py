"""What no outcome shows: connections, storage, clocks, budgets, disk and expiry, asked in turn."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import structlog

from bus.client.fleet_client import FleetClient, optional
from bus.contract import subjects
from bus.contract.alerts import Condition, RuleName
from bus.contract.questions import Agent, ListRequest, SchedulerStats, StorageStats
from bus.errors import BusError
from bus.settings import Settings
from gpuping.alerts.board import Board
from gpuping.alerts.detect import hosts, machine
from gpuping.alerts.detect.findings import Findings, Subject
from gpuping.alerts.detect.fleet_facts import FleetFacts
from gpuping.alerts.detect.machine import Expiry
from gpuping.alerts.detect.recorder import Recorder, moment_now
from gpuping.alerts.rules.rulebook import Rulebook

log = structlog.get_logger("gpuping.alerts.detect.checks")

HOST = "host"  # the sources of conditions of an agent
CONNECTION = "connection"
BUDGET = "budget"
FLEET = "fleet"  # what the fleet as a whole is called
CHECK_SECONDS = 10.0
SLOW_CHECK_SECONDS = 600.0  # of certificates, credentials and budgets
SECONDS_AN_AGENT = 0.001  # large fleets are listed less often
UNANSWERED = 3  # checks in a row without an answer of storage
ANSWER_SECONDS = 5.0


class FleetChecks:
    """Asks services and this machine in turn, and records what changes."""

    def __init__(
        self,
        fleet_client: FleetClient,
        board: Board,
        facts: FleetFacts,
        rulebook: Callable[[], Rulebook],
        settings: Settings,
        on_recorded: Callable[[int], None],
    ) -> None:
        self._fleet_client = fleet_client
        self._board = board
        self._facts = facts
        self._rulebook = rulebook
        self._settings = settings
        self._on_recorded = on_recorded
        self._unanswered = 0
        self._agents = 0

    async def run_connections(self) -> None:
        """Checks who is connected, until cancelled."""
        while True:
            await self._recorded(self._check_connections)
            await asyncio.sleep(max(CHECK_SECONDS, self._agents * SECONDS_AN_AGENT))

    async def run_services(self) -> None:
        """Checks storage, clocks and the disk, until cancelled."""
        while True:
            await self._recorded(self._check_services)
            await asyncio.sleep(CHECK_SECONDS)

    async def run_expiries(self) -> None:
        """Checks certificates, credentials and budgets, until cancelled."""
        while True:
            await self._recorded(self._check_expiries)
            await self._recorded(self._check_budgets)
            await asyncio.sleep(SLOW_CHECK_SECONDS)

    async def _recorded(self, check: Callable[[Recorder], Awaitable[None]]) -> None:
        """One check and its record. What the bus does not take is found again."""
        recorder = Recorder(self._board, self._on_recorded)
        try:
            await check(recorder)
            await recorder.flush()
        except BusError as error:
            log.debug("alerts_check_failed", detail=str(error))

    async def _check_connections(self, recorder: Recorder) -> None:
        minutes = self._rulebook().threshold("disconnected", "minutes")
        cursor: str | None = None
        while True:
            page = await self._fleet_client.agents(ListRequest(cursor=cursor))
            self._agents = page.total
            moment = moment_now()
            for agent in page.agents:
                labels = hosts.labels_of(agent.agent_id, agent.metadata)
                subject = Subject(CONNECTION, agent.agent_id, labels)
                findings = _of_connection(agent, moment.now)
                await recorder.add(subject, findings, moment, timedelta(minutes=minutes))
            cursor = page.next_cursor
            if cursor is None:
                break
        await self._forget_removed(recorder)

    async def _forget_removed(self, recorder: Recorder) -> None:
        """Drops what was wrong with agents that were removed; no end is told."""
        for conditions in list(self._board.conditions.values()):
            facts = self._facts.of(conditions.name)
            if facts is None or not facts.is_removed or not conditions.active:
                continue
            for source in (HOST, CONNECTION, BUDGET):
                kept = self._board.conditions.get(subjects.condition_key(source, conditions.name))
                if kept is not None:
                    subject = Subject(source, conditions.name, {}, kept.value.position)
                    await recorder.add(subject, Findings(is_gone=True), moment_now())

    async def _check_services(self, recorder: Recorder) -> None:
        rulebook = self._rulebook()
        storage, scheduler = await asyncio.gather(
            optional(self._fleet_client.storage_stats(ANSWER_SECONDS)),
            optional(self._fleet_client.scheduler_stats(ANSWER_SECONDS)),
        )
        self._unanswered = 0 if storage is not None else self._unanswered + 1
        moment = moment_now()
        active: dict[str, Condition] = {}
        kept: set[RuleName] = set()
        if storage is not None:
            limit = rulebook.threshold("storage-lag", "outcomes")
            active |= _of_storage(storage, limit, moment.now)
            if not machine.holds_the_bus(self._settings.data_dir):  # else it is the same disk
                percent = rulebook.threshold("disk", "percent")
                active |= _of_storage_disk(storage, percent, moment.now)
        elif self._unanswered >= UNANSWERED:
            active["storage-lag"] = _condition("storage-lag", moment.now, "storage does not answer")
        else:
            kept.add("storage-lag")
        if storage is None:
            kept.add("disk")
        if scheduler is not None:
            active |= _of_clock(scheduler, rulebook.threshold("clock", "seconds"), moment.now)
        else:
            kept.add("clock")
        labels = {"machine": FLEET}
        await recorder.add(
            Subject("services", FLEET, labels), Findings(active, frozenset(kept)), moment
        )
        await self._check_disk(recorder)

    async def _check_disk(self, recorder: Recorder) -> None:
        data_dir = self._settings.data_dir
        free = machine.free_percent(data_dir)
        if free is None or not machine.holds_the_bus(data_dir):
            return
        moment = moment_now()
        active: dict[str, Condition] = {}
        if free < self._rulebook().threshold("disk", "percent"):
            detail = f"{free:.1f} % of the disk of the data dir are free"
            active["disk"] = _condition("disk", moment.now, detail)
        here = machine.name()
        await recorder.add(Subject("disk", here, {"machine": here}), Findings(active), moment)

    async def _check_expiries(self, recorder: Recorder) -> None:
        rulebook = self._rulebook()
        moment = moment_now()
        active: dict[str, Condition] = {}
        kept: set[RuleName] = set()
        limit = moment.now + timedelta(days=rulebook.threshold("certificate", "days"))
        for address in machine.addresses(self._settings, rulebook.file.certificates):
            found = await asyncio.to_thread(machine.certificate_expiry, address)
            if found is None:
                kept.add("certificate")
            else:
                active |= _of_expiry("certificate", found, limit, moment.now)
        limit = moment.now + timedelta(days=rulebook.threshold("credential", "days"))
        expiries = await asyncio.to_thread(_credentials, self._settings)
        for found in expiries:
            active |= _of_expiry("credential", found, limit, moment.now)
        here = machine.name()
        subject = Subject("expiry", here, {"machine": here})
        await recorder.add(subject, Findings(active, frozenset(kept)), moment)

    async def _check_budgets(self, recorder: Recorder) -> None:
        hours = self._settings.GPUPING_MAINTENANCE_BUDGET_HOURS
        if hours is None:
            return
        percent = self._rulebook().threshold("maintenance-budget", "percent")
        for agent_id, facts in list(self._facts.known.items()):
            moment = moment_now()
            findings = hosts.judge_budget(facts, moment.now, timedelta(hours=hours), percent)
            await recorder.add(Subject(BUDGET, agent_id, facts.labels), findings, moment)


def _credentials(settings: Settings) -> list[Expiry]:
    return list(machine.credential_expiries(settings))


def _of_connection(agent: Agent, now: datetime) -> Findings:
    if agent.connected is None or agent.status == "maintenance":
        return Findings(kept=frozenset({"disconnected"}))
    if agent.connected:
        return Findings()
    return Findings({"disconnected": _condition("disconnected", now, "no connection to the bus")})


def _of_storage(
    stats: StorageStats,
    limit: float,
    now: datetime,
) -> dict[str, Condition]:
    detail = ""
    if stats.lag > limit:
        detail = f"{stats.lag} outcomes are not history yet"
    if stats.ingest_waiting is not None:
        detail = f"storage waits: {stats.ingest_waiting}"
    if not detail:
        return {}
    return {"storage-lag": _condition("storage-lag", now, detail)}


def _of_storage_disk(
    stats: StorageStats,
    percent: float,
    now: datetime,
) -> dict[str, Condition]:
    if stats.disk_free_bytes is None or not stats.disk_bytes:
        return {}
    free = 100.0 * stats.disk_free_bytes / stats.disk_bytes
    if free >= percent:
        return {}
    return {"disk": _condition("disk", now, f"{free:.1f} % of the disk of storage are free")}


def _of_clock(
    stats: SchedulerStats,
    limit: float,
    now: datetime,
) -> dict[str, Condition]:
    offset = stats.bus_clock_offset_seconds
    if offset is None or abs(offset) <= limit:
        return {}
    detail = f"the clocks of bus and scheduler differ by {offset:.1f} s"
    return {"clock": _condition("clock", now, detail)}


def _of_expiry(
    rule: RuleName,
    expiry: Expiry,
    limit: datetime,
    now: datetime,
) -> dict[str, Condition]:
    detail = ""
    if expiry.problem is not None:
        detail = f"{expiry.name} is refused: {expiry.problem}"
    elif expiry.at is not None and expiry.at < limit:
        detail = f"{expiry.name} expires on {expiry.at:%Y-%m-%d %H:%M} UTC"
    if not detail:
        return {}
    labels = {"expires": expiry.name}
    return {f"{rule}/{expiry.name}": Condition(rule=rule, since=now, detail=detail, labels=labels)}


def _condition(
    rule: RuleName,
    now: datetime,
    detail: str,
) -> Condition:
    return Condition(rule=rule, since=now, detail=detail)
