"""Maintenance over a month's edge, overlapping, cancelled midway, beyond budget, and of a group.

The real rules of the scheduler make the outcomes, on a clock of the test: booking and cancelling,
the ping's request, the measured window, admission, the policy. Statement, history and the fleet's
replay must then come to the bookings themselves, to the millisecond.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from msgspec import Struct

from bus.contract.durations import Durations
from bus.contract.messages import (
    AgentEntry,
    AgentState,
    AnsweredPing,
    Enrolment,
    GpuReport,
    MaintenanceWindow,
    PingRequest,
    UptimeReport,
    Window,
    decode,
    encode,
)
from bus.contract.questions import HistoryRequest
from bus.contract.statements import FleetReplayRequest, StatementRequest
from bus.errors import RefusedError
from scheduler.fleet.rules.maintenance import Limits, booked, cancelled, check_times, has_label
from scheduler.fleet.tracked import Tracked
from scheduler.ping.accounting.admission import Admitted
from scheduler.ping.accounting.window import admit_report, excused_spans, measured_window
from scheduler.ping.attempt import PingAttempt
from scheduler.ping.next_state import next_state
from scheduler.policy import Answered
from storage.answers import history
from storage.engine.rows import Arrival
from storage.statements import build, replay
from storage.store.store import Reader, Store
from tests.storage_kept import patient
from tests.unit.measured_lives import POLICY

BEGAN = datetime(2026, 10, 31, 19, 58, 47, 301_000, tzinfo=UTC)
EDGE = datetime(2026, 11, 1, tzinfo=UTC)
INTERVAL = timedelta(minutes=14, seconds=59, milliseconds=997)
PINGS = 34
ENDED = BEGAN + PINGS * INTERVAL
MONTHS = ("2026-10", "2026-11")
LIMITS = Limits(notice=timedelta(), monthly=timedelta(hours=3))
UNTIL_EDGE = (
    # over the month's edge, and beginning and ending in the window that crosses it
    (EDGE - timedelta(seconds=30, milliseconds=250), EDGE + timedelta(minutes=7, milliseconds=3)),
    # overlapping it, on both sides of the edge as well
    (EDGE - timedelta(seconds=11), EDGE + timedelta(minutes=9, milliseconds=501)),
)
LATER = (EDGE + timedelta(hours=2), EDGE + timedelta(hours=3))
CANCELLED_AT = EDGE + timedelta(hours=2, minutes=31, seconds=7, milliseconds=123)


class Host(Struct):
    """One host on the scheduler's side: what it knows of it, and what it has recorded."""

    tracked: Tracked
    states: list[AgentState]

    @classmethod
    def enrolled(cls, agent_id: str, site: str) -> "Host":
        tracked = Tracked()
        tracked.entry = AgentEntry(
            agent_id=agent_id,
            registered_at=BEGAN,
            enrolled_at=BEGAN,
            metadata={"site": site},
            enrolled_clocks=AnsweredPing(boot_id="boot", boottime=BEGAN.timestamp()),
        )
        return cls(tracked, [])

    @property
    def entry(self) -> AgentEntry:
        assert self.tracked.entry
        return self.tracked.entry

    def ping(self, now: datetime) -> None:
        """One ping, answered as agentd answers: up, but for what the ping excuses."""
        number = len(self.states) + 1
        attempt = PingAttempt(self.entry.agent_id, self.tracked, f"p{number}", None)
        sent = AnsweredPing(boot_id="boot", boottime=now.timestamp(), answer_ms=2.0)
        attempt.start(now, "nonce", sent, 10.0)
        attempt.response_ms = 2.0
        asked = decode(attempt.request, PingRequest)
        report = answer(self.entry.agent_id, asked, now)
        assert attempt.pinged_at
        window = measured_window(
            self.tracked,
            attempt.window_start,
            report,
            attempt.sent,
            attempt.pinged_at,
            attempt.excused,
            believes_unheard=False,
        )
        admitted = admit_report(window, report)
        assert isinstance(admitted, Admitted)
        attempt.report = report
        attempt.report_bytes = encode(report)
        attempt.admitted = admitted
        attempt.excused_spans = excused_spans(window)
        in_maintenance = self.tracked.in_maintenance(now)
        result = Answered(
            admitted.host.uptime_percent, gpu_available=True, in_maintenance=in_maintenance
        )
        state = next_state(attempt, result, now, POLICY)
        self.tracked.state = state
        self.states.append(state)


def answer(agent_id: str, asked: PingRequest, now: datetime) -> UptimeReport:
    """The host's report: nothing but up, and excused as it was told."""
    length = round((asked.window_seconds or 0.0) * 1000)
    excused = 0
    reached = length
    for span in sorted(asked.excused, key=lambda one: -(one.since_seconds_ago or 0.0)):
        since = min(reached, round((span.since_seconds_ago or 0.0) * 1000))
        until = max(0, round((span.until_seconds_ago or 0.0) * 1000))
        excused += max(0, since - until)
        reached = min(reached, max(until, 0) if since > until else reached)
    told = Durations(up=length - excused, excused=excused)
    window = Window(
        since=now - timedelta(milliseconds=length), until=now, seconds=length / 1000, mark="m"
    )
    gpu = GpuReport(
        uuid="GPU-1",
        index=0,
        name="H100",
        state="up",
        uptime_percent=told.uptime_percent,
        seconds=told.to_seconds(),
    )
    return UptimeReport(
        agent_id=agent_id,
        ping_id=asked.ping_id,
        nonce=asked.nonce,
        window=window,
        uptime_percent=told.uptime_percent,
        seconds=told.to_seconds(),
        gpu_available=True,
        gpus=(gpu,),
    )


def book(hosts: Iterable[Host], label: str, since: datetime, until: datetime, name: str) -> None:
    """As the scheduler books: for all that have the label, ahead of time, within the budget."""
    check_times(since, until, BEGAN, LIMITS)
    window = MaintenanceWindow(since=since, until=until, booking_id=name, booked_at=BEGAN)
    for host in hosts:
        if has_label(host.entry, label):
            host.tracked.entry = booked(host.entry, window, BEGAN, LIMITS)


@pytest.fixture(scope="module")
def hosts() -> list[Host]:
    """Two hosts of the booked site and one of another, through both months."""
    hosts = [Host.enrolled(name, site) for name, site in (("a", "FRA"), ("b", "FRA"), ("c", "AMS"))]
    for number, (since, until) in enumerate(UNTIL_EDGE):
        book(hosts, "site=FRA", since, until, f"edge{number}")
    book(hosts, "site=FRA", *LATER, "later")
    with pytest.raises(RefusedError, match="its budget is 3"):
        book(hosts, "site=FRA", LATER[1], LATER[1] + timedelta(hours=2), "beyond")
    now = BEGAN
    for _ in range(PINGS):
        now += INTERVAL
        for host in hosts:
            is_over = now > CANCELLED_AT
            if is_over and any(one.until == LATER[1] for one in host.entry.maintenance):
                host.tracked.entry = cancelled(host.entry, "later", CANCELLED_AT)
            host.ping(now)
    return hosts


def truth(month: str) -> tuple[int, int]:
    """Milliseconds of the month that were enrolled, and booked: from the bookings alone."""
    begin, end = (BEGAN, EDGE) if month == MONTHS[0] else (EDGE, ENDED)
    spans = [(UNTIL_EDGE[0][0], UNTIL_EDGE[1][1]), (LATER[0], CANCELLED_AT)]
    millisecond = timedelta(milliseconds=1)
    excused = 0
    for since, until in spans:
        excused += max(timedelta(), min(until, end) - max(since, begin)) // millisecond
    return (end - begin) // millisecond, excused


async def test_statement_history_and_replay_come_to_the_bookings_to_the_millisecond(
    tmp_path: Path, hosts: list[Host]
):
    store = Store(patient(tmp_path))
    await store.open(BEGAN)
    try:
        states = [state for host in hosts for state in host.states]
        states.sort(key=lambda one: one.last.pinged_at)
        batch = [Arrival(i, one.agent_id, encode(one)) for i, one in enumerate(states, 1)]
        await store.write(1, await store.prepare(batch))
        for month in MONTHS:
            await store.read(partial(_compare_month, month=month))
        await store.read(_compare_history)
    finally:
        await store.close()


def _compare_month(reader: Reader, month: str) -> None:
    enrolled_ms, excused_ms = truth(month)
    assert excused_ms > 0
    now = ENDED + timedelta(hours=1)
    for agent_id, booked_ms in (("a", excused_ms), ("b", excused_ms), ("c", 0)):
        request = StatementRequest(month=month, enrolments=(Enrolment(BEGAN),), policy="livepeer")
        statement = build.statement(reader, agent_id, request, now, 99.0)
        expected = Durations(up=enrolled_ms - booked_ms, excused=booked_ms)
        found = Durations.from_seconds(statement.host.seconds)
        assert found == expected, (month, agent_id)
        (gpu,) = statement.gpus
        assert Durations.from_seconds(gpu.seconds) == expected
        assert statement.host.uptime_percent == 100.0
        assert {split.method for split in statement.splits} == {"exact"}
        shown = [one for one in statement.incidents if one.state == "excused"]
        assert bool(shown) is (booked_ms > 0)
        assert statement.replay is not None
        assert round(statement.replay.now.due_seconds * 1000) == enrolled_ms - booked_ms
        assert statement.replay.now.paid_percent == 100.0
    request = FleetReplayRequest(month=month, policy="livepeer")
    replayed = replay.fleet(reader, request, now, 99.0)
    for agent in replayed.agents:
        assert agent.uptime_percent == 100.0
        assert agent.now_paid_percent == agent.then_paid_percent == 100.0
        assert round(agent.covered_seconds * 1000) == enrolled_ms


def _compare_history(reader: Reader) -> None:
    enrolled_ms = sum(truth(month)[0] for month in MONTHS)
    excused_ms = sum(truth(month)[1] for month in MONTHS)
    request = HistoryRequest(hours=1000)
    for agent_id, booked_ms in (("a", excused_ms), ("b", excused_ms), ("c", 0)):
        page = history.history(reader, agent_id, request, ENDED + timedelta(seconds=1))
        found = Durations.from_seconds(page.summary.seconds)
        assert found == Durations(up=enrolled_ms - booked_ms, excused=booked_ms)
        assert page.summary.uptime_percent == 100.0
