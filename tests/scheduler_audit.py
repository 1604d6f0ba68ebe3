"""Audits the history against what the agents remember of their answers.

The policy is implemented here a second time, from docs/design/ping-policy.md. It shares nothing
with the scheduler's.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from msgspec.structs import astuple

from bus.contract.messages import AgentState
from bus.settings import Settings
from tests.history import History
from tests.ledger_agents import AgentAnswer, LedgerAgent, LedgerAgents

# Between the scheduler's timestamp of a ping and the agent's, on a busy machine.
SLACK = timedelta(milliseconds=300)


class Verdict(NamedTuple):
    """What the ping policy makes of one outcome."""

    verdict: str
    reason: str | None
    interval: float


class Truth:
    """One agent's counters by the ping policy, and what its status is computed from."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.answered = self.poor = self.streak = self.missed = self.unjudged = 0
        self.recovering = self.no_gpu = False
        self.last_judged: str | None = None
        self.last_outcome: str | None = None
        self.uptime: float | None = None
        self.mark: str | None = None
        self.answered_at: datetime | None = None

    def interval(self) -> float:
        """Rule 5."""
        base, longest = (
            self._settings.PING_BASE_INTERVAL_MINUTES * 60,
            self._settings.PING_MAX_INTERVAL_HOURS * 3600,
        )
        return float(min(base * self._settings.PING_ESCALATION_MULTIPLIER**self.poor, longest))

    def excused(self, reason: str | None) -> Verdict:
        """Rule 6: takes a number, leaves the counters alone."""
        self.last_outcome = "excused"
        return Verdict("excused", reason, self.interval())

    def miss(self, reason: str | None) -> Verdict:
        """Rules 2 and 4."""
        self.missed += 1
        self.last_outcome, self.uptime = "missed", None
        if self._settings.PING_FIRST_PING_GRACE_PERIOD and self.answered == 0:
            return Verdict("first", reason, self.interval())
        return self._poor(reason)

    def answer(self, uptime: float | None, gpu_available: bool) -> Verdict:
        """Rules 2, 3, 4, 9 and 10."""
        self.answered += 1
        self.last_outcome, self.no_gpu = "answered", not gpu_available
        if self._settings.PING_FIRST_PING_GRACE_PERIOD and self.answered == 1:
            return Verdict("first", None if gpu_available else "no_gpu", self.interval())
        if uptime is None:
            self.unjudged += 1
            if self.unjudged >= 3:
                self.uptime = None
            return Verdict("excused", "nothing_to_judge", self.interval())
        self.uptime = uptime
        if uptime < self._settings.PING_UPTIME_THRESHOLD:
            return self._poor("uptime_below_threshold" if gpu_available else "no_gpu")
        self.streak += 1
        self.poor = max(0, self.poor - 1)
        self.last_judged, self.unjudged = "good", 0
        if self.streak >= self._settings.PING_RECOVERY_THRESHOLD_PINGS:
            self.poor, self.recovering = 0, False
        return Verdict("good", None, self.interval())

    def _poor(self, reason: str | None) -> Verdict:
        self.streak, self.recovering, self.last_judged = 0, True, "poor"
        self.unjudged = 0
        self.poor += 1
        return Verdict("poor", reason, self.interval())

    def status(self) -> str:
        """The first that holds."""
        if self.answered == 0:
            return "pending"
        if self.last_outcome == "missed":
            return "missing"
        if self.last_judged == "poor" or self.no_gpu:
            return "poor"
        if self.unjudged >= 3:
            return "pending"
        return "recovering" if self.recovering else "healthy"


Excusable = Callable[[AgentState], bool]


class Audit:
    """Replays one agent's history; `truth` is the record after the last outcome."""

    def __init__(
        self,
        agent: LedgerAgent,
        settings: Settings,
        enrolments: Sequence[datetime],
        excusable: Excusable,
    ) -> None:
        self._agent, self._settings, self._excusable = agent, settings, excusable
        self._enrolments = enrolments
        self._before: AgentState | None = None
        self._window: AgentAnswer | None = None  # of the last answer that was recorded
        self._mark_refused = False
        self._misses: list[datetime] = []  # billed, in a row
        self._heard_late = False  # a miss was answered after its time-out
        self.truth = Truth(settings)

    def replay(self, states: Sequence[AgentState]) -> Truth:
        """Raises AssertionError at the first outcome that is not as it must be."""
        for number, state in enumerate(states, 1):
            assert state.ping_seq == state.last.ping_seq == number, self._where(state)
            expected = self._judge(state)
            self._compare(state, expected)
            self._punctual(state, expected)
            self._before = state
        return self.truth

    def _judge(self, state: AgentState) -> Verdict:
        last = state.last
        match last.outcome:
            case "answered":
                return self._answered(state)
            case "missed":
                self._deserved(state)
                if last.refused_report is not None:
                    self._mark_refused = True
                verdict = self.truth.miss(last.reason)
                if verdict.verdict == "poor":
                    self._misses.append(last.pinged_at)
                if last.ping_id in self._agent.answers:
                    self._heard_late = True
                return verdict
            case "excused":
                assert self._excusable(state), f"excused without an outage: {self._where(state)}"
                self._misses.clear()
                return self.truth.excused(last.reason)

    def _answered(self, state: AgentState) -> Verdict:
        last = state.last
        answer = self._agent.answers[last.ping_id]
        assert answer.valid, self._where(state)
        assert bytes(last.report) == answer.data, self._where(state)
        self._tiles(state)
        good, judged_ms = self._time(state, answer)
        uptime = 100.0 * good / judged_ms if judged_ms else None
        self.truth.mark = answer.mark
        self.truth.answered_at = last.pinged_at
        self._window = answer
        self._mark_refused = False
        self._misses.clear()
        verdict = self.truth.answer(uptime, answer.gpu_available)
        judged = verdict.verdict in {"good", "poor"}
        assert last.uptime_percent == (uptime if judged else None), self._where(state)
        return verdict

    def _tiles(self, state: AgentState) -> None:
        """No millisecond twice, and none left out within one enrolment."""
        last = state.last
        began = [at for at in self._enrolments if at <= last.pinged_at + SLACK]
        expected = max([*began, *([self.truth.answered_at] if self.truth.answered_at else [])])
        expected = expected.replace(microsecond=expected.microsecond // 1000 * 1000)
        crossed = [at for at in self._enrolments if abs(at - last.pinged_at) <= SLACK]
        if not crossed:  # an enrolment just then is before or after the ping
            assert last.since == expected, f"{last.since} is not {expected}: {self._where(state)}"
        if self._window and not crossed and self.truth.answered_at == expected:
            mark = None if self._mark_refused else self._window.mark
            request = self._agent.asked[last.ping_id].request
            assert request.since_mark == mark, self._where(state)

    def _time(self, state: AgentState, answer: AgentAnswer) -> tuple[int, int]:
        """Returns the good and the judged milliseconds: exact in length, and as the host said."""
        last = state.last
        assert last.since is not None, self._where(state)
        assert last.seconds is not None, self._where(state)
        parts = [round(value * 1000) for value in astuple(last.seconds)]
        window = (last.pinged_at - last.since) // timedelta(milliseconds=1)
        assert sum(parts) == window == round((last.window_seconds or 0) * 1000), self._where(state)
        good, judged = parts[0] + parts[1], window - parts[4]
        unheard = 0
        misses = [at for at in self._misses if at >= last.since]  # none of an earlier enrolment
        if len(misses) > 1:
            unheard = (misses[-1] - misses[0]) // timedelta(milliseconds=1)
        assert good <= window - unheard + 1 or self._heard_late, self._where(state)
        length = answer.until - answer.since
        if length and not unheard and answer.uptime is not None:
            said = answer.up / length * window
            assert abs(good - said) <= abs(length - window) + 2, self._where(state)
        return good, judged

    def _deserved(self, state: AgentState) -> None:
        """A miss needs an agent that could be missed."""
        last, agent = state.last, self._agent
        patience = timedelta(seconds=self._settings.PING_RESPONSE_TIMEOUT_SECONDS)
        manners = agent.manners_between(last.pinged_at - SLACK, last.pinged_at + patience + SLACK)
        answer = agent.answers.get(last.ping_id)
        match last.reason:
            case "bad_report":
                assert answer, self._where(state)
                assert not answer.valid, self._where(state)
            case "no_responders":
                assert "absent" in manners, self._where(state)
            case "timeout":
                # A machine that is too slow makes any agent answer late.
                is_late = answer is not None and answer.at > last.pinged_at + patience - SLACK
                assert is_late or manners & {"silent", "absent"}, self._where(state)
                assert is_late or answer is None, self._where(state)
            case _:
                raise AssertionError(f"unknown reason: {self._where(state)}")

    def _compare(self, state: AgentState, expected: Verdict) -> None:
        truth = self.truth
        found = {
            "verdict": state.last.verdict,
            "reason": state.last.reason,
            "interval": state.interval_seconds,
            "answered": state.answered,
            "poor": state.consecutive_poor,
            "streak": state.good_streak,
            "recovering": state.recovering,
            "no_gpu": state.no_gpu,
            "last_judged": state.last_judged,
            "last_outcome": state.last_outcome,
            "uptime": state.uptime_percent,
            "missed": state.missed,
            "mark": state.since_mark,
            "answered_at": state.last_answered_at,
        }
        wanted = expected._asdict() | {
            name: getattr(truth, name) for name in found if name not in Verdict._fields
        }
        assert found == wanted, self._where(state)

    def _punctual(self, state: AgentState, expected: Verdict) -> None:
        """Rule 10, and never before it is due; when it is late, the outcome says by how much."""
        last = state.last
        due = last.pinged_at + timedelta(seconds=expected.interval)
        if (
            last.outcome != "excused" and state.next_ping_at != due
        ):  # written after the next was due already
            assert due < state.next_ping_at <= datetime.now(UTC), self._where(state)
        if self._before is None or last.late_ms is None:
            return
        was_due = max(
            self._before.next_ping_at, *(at for at in self._enrolments if at <= last.pinged_at)
        )
        self._late_as_said(state, (last.pinged_at - was_due).total_seconds() * 1000)

    def _late_as_said(self, state: AgentState, late: float) -> None:
        """`late`: in milliseconds; below 0 it was sent before it was due."""
        said = state.last.late_ms
        assert said is not None
        assert abs(late - said) < 1.0, f"{late} ms late, not {said}: {self._where(state)}"

    def _where(self, state: AgentState) -> str:
        last = state.last
        said = self._agent.answers.get(last.ping_id)
        outcome = f"{last.outcome} {last.verdict} {last.reason} {last.seconds} {last.remarks}"
        outcome += f" since {last.since} at {last.pinged_at} in {last.response_ms} ms"
        return f"{state.agent_id} #{state.ping_seq} {outcome}; the agent said {said}"


def audit(
    history: History,
    agents: LedgerAgents,
    settings: Settings,
    enrolments: dict[str, list[datetime]],
    excusable: Excusable = lambda _state: False,
) -> dict[str, Truth]:
    """Returns every agent's record. Raises AssertionError where a history breaks the rules."""
    assert not set(history) - set(agents), "outcomes of agents that were never there"
    return {
        agent_id: Audit(agents[agent_id], settings, enrolments[agent_id], excusable).replay(states)
        for agent_id, states in history.items()
    }
