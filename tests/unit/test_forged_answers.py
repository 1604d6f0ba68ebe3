"""Whatever is changed in a signed answer, the scheduler that asked never takes it for one."""

import asyncio
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from nats.aio.msg import Msg

from bench.responder import healthy
from bus.contract.messages import (
    AgentEntry,
    AnsweredPing,
    PingRequest,
    UptimeReport,
    decode,
    encode,
)
from bus.identity.keys import KeyKind, SigningKey
from bus.identity.signatures import GENESIS
from bus.identity.signed_report import HEADER, ReportSigner
from bus.transport.bus_clock import BusClock
from bus.transport.connection import Client
from scheduler.fleet.tracked import Tracked
from scheduler.ping.attempt import PingAttempt
from scheduler.ping.outages.bus_monitor import BusMonitor
from scheduler.ping.outages.server_monitor import ServerMonitor
from scheduler.ping.pinger import REPORT_LIMIT_BYTES, Pinger, PingLimits
from scheduler.policy import Answered, Missed, PingResult

FLEET = SigningKey.generate(KeyKind.ACCOUNT).public
KEY = SigningKey.generate(KeyKind.USER)
NOW = datetime(2026, 11, 26, tzinfo=UTC)
RUNNER = asyncio.Runner()


class Asked:
    """One agent that was pinged by a real pinger, and what came of it."""

    def __init__(self, agent_id: str = "a-1", fleet: str = FLEET, ping_id: str = "p-1") -> None:
        self.results: list[PingResult] = []
        self.late: list[Msg] = []
        client = Client("test")
        self.pinger = Pinger(
            client,
            "me",
            BusMonitor(client, 10.0),
            ServerMonitor(client),
            BusClock(client),
            PingLimits(1, timeout_seconds=5.0, fleet=fleet, requires_signed=True),
            lambda _, result: self.results.append(result),
            self.late.append,
        )
        tracked = Tracked()
        tracked.entry = AgentEntry(
            agent_id=agent_id,
            registered_at=NOW - timedelta(hours=1),
            enrolled_at=NOW - timedelta(hours=1),
            signing_key=KEY.public,
        )
        self.attempt = PingAttempt(agent_id, tracked, ping_id, NOW)
        nonce = f"{hash((agent_id, ping_id)):x}"
        self.attempt.start(NOW, nonce, AnsweredPing(boot_id="", boottime=0.0), 5.0)
        self.pinger._in_flight[ping_id] = self.attempt

    def answer(self, fleet: str = FLEET, extends: str = GENESIS) -> tuple[bytes, str]:
        """What the host sends: the report and its header."""
        request = decode(self.attempt.request, PingRequest)
        report: UptimeReport = healthy(self.attempt.agent_id, request, NOW)
        payload = encode(report)
        signer = ReportSigner(fleet, KEY)
        asked = self.attempt.request
        return payload, signer.sign(request, asked, report, payload, "0" * 64, extends)

    def receive(self, payload: bytes, header: str | None) -> list[PingResult]:
        """What the pinger makes of an answer; nothing where it is ignored."""

        async def one_turn() -> None:
            subject = f"{self.pinger._inbox}.{self.attempt.ping_id}"
            message = Msg(
                _client=None,  # type: ignore[arg-type]  # nothing is sent
                subject=subject,
                data=payload,
                headers=None if header is None else {HEADER: header},
            )
            self.pinger._receive(message)
            await asyncio.sleep(0)  # the turn in which signatures are checked

        RUNNER.run(one_turn())
        return self.results


def test_an_honest_answer_counts() -> None:
    asked = Asked()
    assert [type(result) for result in asked.receive(*asked.answer())] == [Answered]


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_no_byte_of_a_report_or_of_its_header_can_be_changed(data: st.DataObject) -> None:
    asked = Asked()
    payload, header = asked.answer()
    if data.draw(st.booleans()):
        place = data.draw(st.integers(0, len(payload) - 1))
        changed = bytearray(payload)
        changed[place] ^= data.draw(st.integers(1, 255))
        payload = bytes(changed)
    else:
        place = data.draw(st.integers(0, len(header) - 1))
        other = data.draw(st.characters(exclude_characters=header[place]))
        header = header[:place] + other + header[place + 1 :]
    for result in asked.receive(payload, header):
        assert isinstance(result, Missed)
        assert result.reason == "bad_report"


def test_an_answer_to_another_ping_agent_fleet_or_ledger_does_not_count() -> None:
    other_ping = Asked(ping_id="p-2").answer()
    other_agent = Asked(agent_id="a-2").answer()
    other_fleet = Asked().answer(fleet=SigningKey.generate(KeyKind.ACCOUNT).public)
    for answer, reason in (
        (other_ping, "ping_wrong"),
        (other_agent, "ping_wrong"),
        (other_fleet, "fleet_wrong"),
    ):
        asked = Asked()
        assert asked.receive(*answer) == []
        assert asked.attempt.rejected_as == reason
    asked = Asked()
    (result,) = asked.receive(*asked.answer(extends="another." + "0" * 64))
    assert isinstance(result, Missed)
    assert asked.attempt.ledger_remark == "ledger_edited"


def test_an_attempt_does_not_expire_while_its_answer_is_checked() -> None:
    asked = Asked()
    asked.attempt.first_sent_at = -1_000.0
    asked.attempt.answers_in_check = 1
    assert asked.pinger._take_expired(0.0) == []
    asked.attempt.answers_in_check = 0
    assert asked.pinger._take_expired(0.0) == [asked.attempt]


def test_an_answer_to_an_earlier_start_of_the_same_attempt_does_not_count() -> None:
    """An attempt whose outcome lost its race is started anew while an answer is being checked."""
    asked = Asked()
    payload, header = asked.answer()

    async def started_anew_meanwhile() -> None:
        subject = f"{asked.pinger._inbox}.{asked.attempt.ping_id}"
        message = Msg(_client=None, subject=subject, data=payload, headers={HEADER: header})  # type: ignore[arg-type]
        asked.pinger._receive(message)
        asked.attempt.start(NOW, "another", AnsweredPing(boot_id="", boottime=0.0), 5.0)
        await asyncio.sleep(0)

    RUNNER.run(started_anew_meanwhile())
    assert asked.results == []
    assert asked.attempt.answers_in_check == 0


def test_of_two_answers_to_one_ping_the_first_counts() -> None:
    """A gateway answers by HTTP, and agentd on the bus: both have the ping's id and nonce."""
    asked = Asked()
    assert asked.attempt.tracked.entry
    by_http = replace(asked.attempt.tracked.entry, signing_key=None, by_http=True)
    asked.attempt.tracked.entry = by_http
    asked.attempt.start(NOW, "nonce", AnsweredPing(boot_id="", boottime=0.0), 5.0)
    payload, header = asked.answer()
    assert [type(result) for result in asked.receive(payload, None)] == [Answered]
    assert asked.attempt.report_bytes == payload
    # It goes where late answers are compared with the last miss, and this ping was none.
    assert len(asked.receive(payload + b" ", header)) == 1
    assert len(asked.late) == 1
    assert asked.attempt.report_bytes == payload


def test_no_answer_of_an_earlier_enrolment_counts_in_a_later_one() -> None:
    """The host has the same keys, and replays what it answered before it was removed."""
    asked = Asked()
    payload, header = asked.answer()
    assert [type(result) for result in asked.receive(payload, header)] == [Answered]
    again = Asked(ping_id="p-2")
    assert again.attempt.tracked.entry
    again.attempt.tracked.entry = replace(again.attempt.tracked.entry, enrolled_at=NOW)
    again.attempt.start(NOW, "another", AnsweredPing(boot_id="", boottime=0.0), 5.0)
    assert again.receive(payload, header) == []
    assert again.attempt.rejected_as == "ping_wrong"
    # With the new ping's id and nonce, the old signature does not hold.
    request = decode(again.attempt.request, PingRequest)
    report = replace(decode(payload, UptimeReport), ping_id="p-2", nonce=request.nonce)
    assert again.receive(encode(report), header) == []
    assert again.attempt.rejected_as == "request_wrong"


def test_ten_thousand_gpus_are_refused_by_their_bytes_and_kept_in_part() -> None:
    asked = Asked()
    payload, header = asked.answer()
    report = decode(payload, UptimeReport)
    gpus = tuple(replace(report.gpus[0], uuid=f"GPU-{number}") for number in range(10_000))
    (result,) = asked.receive(encode(replace(report, gpus=gpus)), header)
    assert result == Missed("bad_report")
    assert asked.attempt.refused_report
    assert len(asked.attempt.refused_report) == REPORT_LIMIT_BYTES
