"""Which late answers cancel a miss, by what the state says of it: the asker may be gone."""

from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace
from nats.aio.msg import Msg

from bench.responder import healthy
from bus.contract import subjects
from bus.contract.messages import (
    AgentEntry,
    AgentState,
    AnsweredPing,
    PingRequest,
    UptimeReport,
    decode,
    encode,
)
from bus.identity.keys import KeyKind, SigningKey
from bus.identity.signatures import GENESIS
from bus.identity.signed_report import HEADER, ReportSigner
from bus.transport.connection import Client
from scheduler.cluster.peers import Peers
from scheduler.fleet.directory import Directory
from scheduler.fleet.tracked import Tracked
from scheduler.ping.accounting.silence import is_last_miss, of_enrolment, silence_after_miss
from scheduler.ping.attempt import PingAttempt
from scheduler.ping.late_answers import MOST_INBOXES, LateAnswers
from scheduler.ping.next_state import next_state
from scheduler.ping.pinger import PingLimits
from scheduler.policy import Missed, Policy

FLEET = SigningKey.generate(KeyKind.ACCOUNT).public
KEY = SigningKey.generate(KeyKind.USER)
NOW = datetime(2026, 11, 28, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
POLICY = Policy(
    base_seconds=900,
    max_seconds=86_400,
    multiplier=2.0,
    threshold_percent=99.0,
    recovery_pings=3,
    grace=False,
)
SIGNED = PingLimits(1, timeout_seconds=5.0, fleet=FLEET, requires_signed=True)
UNSIGNED = PingLimits(1, timeout_seconds=5.0)


def entry_of(agent_id: str, signing_key: str | None) -> AgentEntry:
    return AgentEntry(
        agent_id=agent_id,
        registered_at=NOW - MINUTE,
        enrolled_at=NOW - MINUTE,
        signing_key=signing_key,
    )


class Missing:
    """An agent that missed two pings of a scheduler which is gone; another has read its state."""

    def __init__(
        self,
        *,
        signing_key: str | None = KEY.public,
        limits: PingLimits = SIGNED,
        answered_in_time: bool = False,
    ) -> None:
        self.entry = entry_of("a", signing_key)
        self.attempt = self._ping(Tracked(), "0a-1", NOW)
        tracked = Tracked()
        tracked.state = self._missed(self.attempt)
        self.attempt = self._ping(tracked, "0a-2", NOW + 30 * MINUTE)
        self.attempt.may_be_answered_late = not answered_in_time
        self.state = self._missed(self.attempt)
        self.directory = Directory(POLICY)
        self.directory.apply_entry("a", self.entry, 1)
        self.limits = limits
        self.active: dict[str, PingAttempt] = {}
        client = Client("test")
        self.late = LateAnswers(
            client,
            self.directory,
            Peers(client, "0b", lambda: None),
            self.active,
            limits,
            lambda: NOW,
        )

    def _ping(self, tracked: Tracked, ping_id: str, at: datetime) -> PingAttempt:
        tracked.entry = self.entry
        attempt = PingAttempt("a", tracked, ping_id, at)
        attempt.start(at, f"nonce of {ping_id}", AnsweredPing(boot_id="", boottime=0.0), 5.0)
        attempt.may_be_answered_late = True
        return attempt

    def _missed(self, attempt: PingAttempt) -> AgentState:
        state = next_state(attempt, Missed("timeout"), NOW, POLICY)
        return decode(encode(state), AgentState)

    @property
    def tracked(self) -> Tracked:
        tracked = self.directory.get("a")
        assert tracked
        return tracked

    def loaded(self) -> "Missing":
        self.directory.apply_state("a", self.state, 2, round(NOW.timestamp() * 1e9))
        return self

    def answer(self, **changes: object) -> UptimeReport:
        request = decode(self.attempt.request, PingRequest)
        return replace(healthy("a", request, NOW), **changes)

    def hears(self, report: UptimeReport, key: SigningKey | None = KEY, fleet: str = FLEET) -> bool:
        """Whether the answer cancels the miss."""
        data = encode(report)
        headers = None
        if key is not None:
            request = decode(self.attempt.request, PingRequest)
            signer = ReportSigner(fleet, key)
            signature = signer.sign(request, self.attempt.request, report, data, "0" * 64, GENESIS)
            headers = {HEADER: signature}
        self.receive(data, headers)
        return self.tracked.late_ping_id == "0a-2"

    def receive(self, data: bytes, headers: dict[str, str] | None) -> None:
        subject = f"{subjects.ping_inbox('0a')}.0a-2"
        nobody: Client = None  # type: ignore[assignment]  # nothing is sent
        self.late.receive(Msg(nobody, subject=subject, data=data, headers=headers))


def test_the_late_answer_to_a_ping_of_a_scheduler_that_is_gone_cancels_its_miss() -> None:
    agent = Missing().loaded()
    assert agent.hears(agent.answer())
    assert is_last_miss(agent.state, agent.tracked.late_ping_id)
    assert not is_last_miss(agent.state, None)


def test_it_is_heard_while_the_miss_is_being_written() -> None:
    agent = Missing()
    agent.active["a"] = agent.attempt
    assert agent.hears(agent.answer())
    agent = Missing(answered_in_time=True)
    agent.active["a"] = agent.attempt
    assert not agent.hears(agent.answer())


def test_an_unsigned_late_answer_of_a_host_with_a_key_cancels_nothing() -> None:
    agent = Missing().loaded()
    assert not agent.hears(agent.answer(), key=None)
    assert not agent.hears(agent.answer(), key=SigningKey.generate(KeyKind.USER))
    assert not agent.hears(agent.answer(), fleet=SigningKey.generate(KeyKind.ACCOUNT).public)
    agent.receive(encode(agent.answer()), {HEADER: "nonsense"})
    agent.receive(b"", {"Status": "503"})
    agent.receive(b"\xff" * 100_000, None)
    assert agent.tracked.late_ping_id is None


@pytest.mark.parametrize(
    "changes", [{"ping_id": "0a-1"}, {"nonce": "nonce of 0a-1"}, {"nonce": None}]
)
@pytest.mark.parametrize("limits", [SIGNED, UNSIGNED])
def test_an_answer_to_another_ping_cancels_nothing(
    changes: dict[str, object], limits: PingLimits
) -> None:
    signing_key = KEY.public if limits is SIGNED else None
    agent = Missing(limits=limits, signing_key=signing_key).loaded()
    assert not agent.hears(agent.answer(**changes))
    assert not agent.hears(agent.answer(agent_id="b"))
    assert agent.hears(agent.answer())


def test_what_would_be_refused_in_time_cancels_nothing_later() -> None:
    agent = Missing().loaded()
    report = agent.answer()
    agent.hears(replace(report, window=replace(report.window, seconds=report.window.seconds + 1)))
    assert agent.tracked.late_ping_id is None
    # A host whose key is not known, where signatures are required.
    agent = Missing(signing_key=None).loaded()
    assert not agent.hears(agent.answer(), key=None)
    # A miss whose answer came in time and was refused.
    agent = Missing(answered_in_time=True).loaded()
    assert not agent.hears(agent.answer())


def test_an_unsigned_host_is_heard_where_unsigned_reports_count() -> None:
    agent = Missing(signing_key=None, limits=UNSIGNED).loaded()
    assert agent.hears(agent.answer(), key=None)


def test_an_answer_from_before_the_host_was_enrolled_again_cancels_nothing() -> None:
    """It was signed with a key that is the host's no longer, and misses of before do not count."""
    agent = Missing().loaded()
    new_key = SigningKey.generate(KeyKind.USER).public
    again = replace(agent.entry, enrolled_at=NOW + 60 * MINUTE, signing_key=new_key)
    agent.directory.apply_entry("a", again, 3)
    assert not agent.hears(agent.answer())
    assert of_enrolment(agent.state.silence, again.enrolled_at) is None


def test_an_answer_of_a_removed_or_unknown_agent_is_ignored() -> None:
    agent = Missing().loaded()
    agent.directory.apply_entry("a", replace(agent.entry, removed_at=NOW), 3)
    assert not agent.hears(agent.answer())
    agent.directory.apply_late_answer("nobody", "0a-2")
    assert agent.directory.get("nobody") is None


def test_what_the_bucket_says_is_taken_unless_it_is_older() -> None:
    agent = Missing().loaded()
    agent.directory.apply_late_answer("a", "0a-1")
    assert not is_last_miss(agent.state, agent.tracked.late_ping_id)
    agent.directory.apply_late_answer("a", "0a-2")
    agent.directory.apply_late_answer("a", "0a-1")
    assert is_last_miss(agent.state, agent.tracked.late_ping_id)


def test_a_state_of_before_has_no_nonce_and_its_miss_stays() -> None:
    agent = Missing()
    assert agent.state.silence
    agent.state = replace(agent.state, silence=replace(agent.state.silence, nonce=None))
    agent.loaded()
    assert not agent.hears(agent.answer())


async def test_the_inboxes_of_schedulers_with_the_newest_misses_are_heard() -> None:
    agent = Missing()
    for number in range(2 * MOST_INBOXES):
        name = f"host-{number}"
        at = NOW + number * MINUTE
        state = replace(
            agent.state,
            agent_id=name,
            last=replace(agent.state.last, ping_id=f"{number:x}-1", pinged_at=at),
            silence=silence_after_miss(None, at, "nonce"),
        )
        agent.directory.apply_entry(name, entry_of(name, None), 10 + number)
        agent.directory.apply_state(name, state, 100 + number, round(NOW.timestamp() * 1e9))
    assert await agent.late._gone() == [
        f"{number:x}" for number in reversed(range(MOST_INBOXES, 2 * MOST_INBOXES))
    ]
