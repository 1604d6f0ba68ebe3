"""Checks, from outside and after the faults, what the system recorded against what was true.

The truth is what the hosts wrote down when they answered (`records`), what the harness did to whom
(`attack`), and what the schedulers announced once the bus had acknowledged it. Times are compared
on CLOCK_BOOTTIME, which no fault sets: an outcome lies between the host's answers before and after
it.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import nats.errors
from msgspec import Struct
from msgspec.structs import astuple

from bus.client.fleet_client import FleetClient
from bus.clock import boottime
from bus.contract.messages import AgentState
from bus.contract.questions import HistoryRequest, Ping
from bus.errors import BusError
from bus.transport import bus_clock
from tests.chaos import records
from tests.chaos.attack import Attack
from tests.chaos.fleet import read_gaps, share_up
from tests.chaos.records import RecordedHost
from tests.chaos.system import System
from tests.history import History, read_history
from tests.ledger_agents import AgentAnswer
from tests.scheduler_audit import Audit, Verdict
from tests.scheduler_keys import snapshot

FOLLOW_SECONDS = 180.0  # a lost sourcing consumer is tried again after up to 120 s
INGEST_SECONDS = 60.0
# After a cut of its own a host's client needs so long to be back: 15 s to notice, 8 s to try again.
RETURN_SECONDS = 30.0
# An outage of ours excuses so long after its end: agents move to another server.
EXCUSED_SECONDS = 60.0
TOLD = 5  # failures of one kind that are printed
AWAY_KINDS = frozenset({"kill", "freeze", "cut", "stall"})
DEAD_KINDS = frozenset({"kill", "freeze"})
TOLERANCE_SECONDS = 1.5  # of one absence: its beginning is known to a beat, its end to a start


class Found(Struct):
    """What one seed came to. Every list must be empty."""

    outcomes: Counter[str]
    lost: list[str] = []  # a number missing, or an announced outcome that is not in history
    doubled: list[str] = []
    differing: list[str] = []  # DuckDB is not what the stream is
    wrong: list[str] = []  # a window, a verdict or a figure that is not as it must be
    poor: list[str] = []  # healthy hosts that missed, or were judged poor
    credited: list[str] = []  # time in which the host was away and was called up
    longest_seconds: float = 0.0  # between two answered pings of one host

    @property
    def failures(self) -> dict[str, list[str]]:
        named = {
            "lost": self.lost,
            "doubled": self.doubled,
            "differing": self.differing,
            "wrong": self.wrong,
            "judged poor": self.poor,
            "credited": self.credited,
        }
        return {name: texts for name, texts in named.items() if texts}


class Span(Struct, frozen=True):
    """CLOCK_BOOTTIME, seconds."""

    began: float
    ended: float

    def meets(self, spans: Sequence["Span"]) -> bool:
        return any(one.began < self.ended and one.ended > self.began for one in spans)


class Dead(NamedTuple):
    """How long a host's process did not live, and how often."""

    seconds: float
    absences: int


class Whereabouts:
    """When each fleet was away, and when our own side had an outage."""

    def __init__(self, system: System, attack: Attack) -> None:
        self._system = system
        self.absences: dict[str, list[Span]] = {}
        self._deaths: dict[str, list[Span]] = {}
        self.most_for_one_absence = system.shape.timeout_seconds + TOLERANCE_SECONDS
        self.ours: list[Span] = [Span(s.began, s.ended + EXCUSED_SECONDS) for s in system.stalls]
        self.scheduler_clocks_set = [
            Span(one.began, one.ended)
            for one in attack.happened
            if one.kind == "clock" and one.target.startswith("scheduler")
        ]
        for one in attack.happened:
            if one.target.startswith("fleet"):
                if one.kind in AWAY_KINDS:
                    self._add(one.target, Span(one.began, one.ended), one.kind)
                continue
            self.ours.append(Span(one.began, one.ended + EXCUSED_SECONDS))
            if one.kind == "power":
                for number in range(system.shape.fleets):
                    self._add(f"fleet-{number + 1}", Span(one.began, one.ended), "kill")
        self._stalls = [Span(s.began, s.ended) for s in system.stalls]
        for number in range(system.shape.fleets):
            self._add_gaps(system.folder / "records", f"fleet-{number + 1}")

    def _add(self, fleet: str, span: Span, kind: str) -> None:
        self.absences.setdefault(fleet, []).append(span)
        if kind in DEAD_KINDS:
            self._deaths.setdefault(fleet, []).append(span)

    def _add_gaps(self, folder: Path, fleet: str) -> None:
        """The time in which the fleet itself found that it had not lived, for whatever reason."""
        for began, ended in read_gaps((folder / fleet).with_suffix(".gaps")):
            self._add(fleet, Span(began / 1000, ended / 1000), "gap")

    def dead_seconds(self, agent_id: str, life: Span) -> Dead:
        """How long the host's process was dead or frozen within its life."""
        deaths = self._deaths.get(self._fleet_of(agent_id), [])
        inside = [min(d.ended, life.ended) - max(d.began, life.began) for d in deaths]
        return Dead(sum(max(0.0, seconds) for seconds in inside), len(deaths))

    def _fleet_of(self, agent_id: str) -> str:
        share = self._system.shape.hosts // self._system.shape.fleets
        return f"fleet-{int(agent_id[1:]) // share + 1}"

    def of(self, agent_id: str, *, return_seconds: float = 0.0) -> list[Span]:
        """Its absences, each longer by the time that its client may need to be back."""
        spans = [*self.absences.get(self._fleet_of(agent_id), ()), *self._stalls]
        return [Span(span.began, span.ended + return_seconds) for span in spans]


class _HostAudit(Audit):
    """The auditor of the scheduler, with what this harness knows of absences and outages.

    Outcomes of releases before have no window of their own: their reports say where it was.
    """

    places: dict[int, Span]
    absences: list[Span]
    scheduler_clocks_set: list[Span]

    def _tiles(self, state: AgentState) -> None:
        if state.last.since is not None:
            super()._tiles(state)

    def _time(self, state: AgentState, answer: AgentAnswer) -> tuple[int, int]:
        if state.last.since is not None:
            return super()._time(state, answer)
        assert state.last.seconds
        parts = [round(value * 1000) for value in astuple(state.last.seconds)]
        return parts[0] + parts[1], sum(parts) - parts[4]

    def _punctual(self, state: AgentState, expected: Verdict) -> None:
        """An empty window has no place of its own: a scheduler's clock was set back."""
        if state.last.since is None or state.last.pinged_at > state.last.since:
            super()._punctual(state, expected)

    def _late_as_said(self, state: AgentState, late: float) -> None:
        """A clock that is set back by less than is tolerated sends what was due with a time before.

        The window ends there and the next one begins there, so that nobody loses by it.
        """
        is_tolerated = -1000 * bus_clock.TOLERANCE_SECONDS <= late < 0.0
        if is_tolerated and self.places[state.ping_seq].meets(self.scheduler_clocks_set):
            return
        super()._late_as_said(state, late)

    def _deserved(self, state: AgentState) -> None:
        assert self.places[state.ping_seq].meets(self.absences), (
            f"missed, and was there: {self._where(state)}"
        )


async def audit(system: System, attack: Attack) -> Found:
    """Reads everything and compares it. The schedulers have ended before."""
    history = await _settled_history(system)
    hosts = records.read(sorted((system.folder / "records").glob("*.answers")))
    found = Found(Counter())
    where = Whereabouts(system, attack)
    for agent_id in system.hosts:
        states = history.get(agent_id, [])
        host = hosts.get(agent_id) or RecordedHost(agent_id)
        for state in states:
            found.outcomes[state.last.outcome] += 1
            report = bytes(state.last.report)
            host.use(state.last.ping_id, report)
        _check_numbers(agent_id, states, found)
        _check_announced(agent_id, states, system, found)
        places = _places(states, host)
        await _replay(system, host, states, places, where, found)
        _check_healthy(agent_id, states, places, where, found)
        _check_credit(agent_id, states, host, where, found)
    await _compare_with_storage(system, history, found)
    return found


async def _settled_history(system: System) -> History:
    """The stream, once it ends with the bucket's states.

    Reading alone may take minutes on a busy machine; the limit is for what is read to agree.
    """
    deadline = boottime() + FOLLOW_SECONDS
    while True:
        began = boottime()
        try:
            history = await read_history(system.bus)
            states = {name: (await snapshot(system.bus, name)).state for name in system.hosts}
        except (BusError, nats.errors.Error) as error:
            if boottime() > deadline:
                raise TimeoutError(f"the bus did not answer the auditor: {error!r}") from error
            await asyncio.sleep(1)
            continue
        behind = [
            name
            for name, state in states.items()
            if state and (not history[name] or history[name][-1] != state)
        ]
        if not behind:
            return history
        if began > deadline:
            raise TimeoutError(f"the history ends before the states of {behind[:TOLD]}")
        await asyncio.sleep(1)


def _check_numbers(agent_id: str, states: list[AgentState], found: Found) -> None:
    numbers = Counter(state.ping_seq for state in states)
    pings = Counter(state.last.ping_id for state in states)
    newest = max(numbers, default=0)
    found.lost += [f"{agent_id} #{n}" for n in range(1, newest + 1) if n not in numbers]
    found.doubled += [f"{agent_id} #{n}" for n, count in numbers.items() if count > 1]
    found.doubled += [f"{agent_id} ping {p}" for p, count in pings.items() if count > 1]


def _check_announced(agent_id: str, states: list[AgentState], system: System, found: Found) -> None:
    recorded = {state.ping_seq: state.last.pinged_at for state in states}
    for (announced_id, number), pinged_at in system.announced.items():
        if announced_id == agent_id and recorded.get(number) != pinged_at:
            found.lost.append(f"{agent_id} #{number} was announced for {pinged_at}")


def _places(states: list[AgentState], host: RecordedHost) -> dict[int, Span]:
    """Between which answers of the host each outcome lies."""
    at: dict[int, float] = {}
    for state in states:
        answer = host.answers.get(state.last.ping_id)
        if answer is not None and state.last.outcome == "answered":
            at[state.ping_seq] = answer.until / 1000
    places = {}
    before = 0.0
    for state in states:
        number = state.ping_seq
        after = min((when for n, when in at.items() if n >= number), default=float("inf"))
        places[number] = Span(before, after)
        before = at.get(number, before)
    return places


async def _replay(
    system: System,
    host: RecordedHost,
    states: list[AgentState],
    places: dict[int, Span],
    where: Whereabouts,
    found: Found,
) -> None:
    entry = (await snapshot(system.bus, host.agent_id)).entry
    if entry is None:
        found.lost.append(f"{host.agent_id} is not registered any more")
        return
    auditor = _HostAudit(
        host,  # type: ignore[arg-type]
        system.settings,
        [entry.enrolled_at],
        lambda state: places[state.ping_seq].meets(where.ours),
    )
    auditor.places = places
    auditor.scheduler_clocks_set = where.scheduler_clocks_set
    auditor.absences = where.of(host.agent_id, return_seconds=RETURN_SECONDS)
    try:
        auditor.replay(states)
    except (AssertionError, KeyError) as error:
        found.wrong.append(" ".join(f"{type(error).__name__} {error}".split())[:600])


def _check_healthy(
    agent_id: str,
    states: list[AgentState],
    places: dict[int, Span],
    where: Whereabouts,
    found: Found,
) -> None:
    """A host that was always up and there has never missed, and is never judged poor."""
    absences = where.of(agent_id, return_seconds=RETURN_SECONDS)
    answered = [places[s.ping_seq].ended for s in states if s.last.outcome == "answered"]
    for before, after in pairwise(answered):
        found.longest_seconds = max(found.longest_seconds, after - before)
    if share_up(agent_id) < 1.0:
        return
    for state in states:
        is_bad = state.last.verdict == "poor" or state.last.outcome == "missed"
        if is_bad and not places[state.ping_seq].meets(absences):
            found.poor.append(f"{agent_id} #{state.ping_seq} {state.last.reason}")


def _check_credit(
    agent_id: str,
    states: list[AgentState],
    host: RecordedHost,
    where: Whereabouts,
    found: Found,
) -> None:
    """Time in which the host's process was dead or frozen is not called up.

    The admission rule lets an answer's own time pass either way, which is as long as a ping may
    take; so an absence may be called up by that much, once.
    """
    recorded = 0.0
    spans = []
    for state in states:
        answer = host.answers.get(state.last.ping_id)
        seconds = state.last.seconds
        if answer is None or seconds is None or state.last.outcome != "answered":
            continue
        recorded += seconds.up
        length = (answer.until - answer.since) / 1000
        window = state.last.window_seconds or 0.0
        most = answer.up / 1000 + max(0.0, window - length) + TOLERANCE_SECONDS
        if seconds.up > most:
            found.credited.append(f"{agent_id} #{state.ping_seq}: {seconds.up} s, not {most}")
        spans.append(answer)
    if not spans:
        return
    life = Span(spans[0].since / 1000, spans[-1].until / 1000)
    dead = where.dead_seconds(agent_id, life)
    most = life.ended - life.began - dead.seconds
    if recorded > most + dead.absences * where.most_for_one_absence + TOLERANCE_SECONDS:
        found.credited.append(f"{agent_id}: {recorded:.1f} s up of {most:.1f} s alive")


async def _compare_with_storage(system: System, history: History, found: Found) -> None:
    """Every outcome of the stream is in DuckDB exactly once, and nothing else is."""
    client = FleetClient(system.bus, 5.0)
    for agent_id in system.hosts:
        deadline = boottime() + INGEST_SECONDS
        states = history.get(agent_id, [])
        while True:
            try:
                pings = await _all_pages(client, agent_id)
            except BusError as error:
                pings = []
                problem = str(error)
            else:
                problem = _difference(states, pings)
            if not problem or boottime() > deadline:
                break
            await asyncio.sleep(0.5)
        if problem:
            found.differing.append(f"{agent_id}: {problem}")


async def _all_pages(client: FleetClient, agent_id: str) -> list[Ping]:
    pings: list[Ping] = []
    request = HistoryRequest(hours=1000, limit=1000)
    while True:
        page = await client.history(agent_id, request)
        pings += page.pings
        if page.next_cursor is None:
            return pings
        request = HistoryRequest(hours=1000, limit=1000, cursor=page.next_cursor)


def _difference(states: list[AgentState], pings: list[Ping]) -> str:
    stream = Counter(
        (s.ping_seq, s.last.pinged_at, s.last.outcome, s.last.verdict, s.last.seconds)
        for s in states
    )
    stored = Counter((p.ping_seq, p.pinged_at, p.outcome, p.verdict, p.seconds) for p in pings)
    missing = sum((stream - stored).values())
    surplus = sum((stored - stream).values())
    if missing or surplus:
        first = next(iter((stream - stored) or (stored - stream)))
        return f"{missing} of {len(states)} are not stored as sent, {surplus} are surplus: {first}"
    return ""


def backup_problem(history: History, restored: History, folder: Path) -> str:
    """Why a restored backup is not a beginning of what was recorded; empty when it is."""
    for agent_id, states in restored.items():
        numbers = [state.ping_seq for state in states]
        if numbers != list(range(1, len(numbers) + 1)):
            return f"{folder.name}: {agent_id} has gaps or doubles"
        whole = [state.last.ping_id for state in history.get(agent_id, [])]
        if [state.last.ping_id for state in states] != whole[: len(states)]:
            return f"{folder.name}: {agent_id} differs from what was recorded"
    return ""
