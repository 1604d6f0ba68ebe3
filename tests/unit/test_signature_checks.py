"""Signatures are checked in order, whether at once or in a thread, and each answer is told once."""

import asyncio
from datetime import UTC, datetime

import pytest

from bus.contract.messages import PingRequest, encode
from bus.identity.signed_report import BadSignatureError, Checked
from scheduler.fleet.tracked import Tracked
from scheduler.ping.attempt import PingAttempt
from scheduler.ping.signature_checks import (
    IN_THREAD_FROM,
    CheckResult,
    SignatureChecks,
    SignedAnswer,
)
from tests.unit.test_signed_reports import Host, expected, ping

NOW = datetime(2026, 11, 26, tzinfo=UTC)


def answer(number: int) -> SignedAnswer:
    """An answer; every fifth is of another ping."""
    request = ping(number)
    asked: PingRequest = ping(number + 1000) if number % 5 == 0 else request
    header, report, _ = Host().answer(asked)
    wanted = expected(request)
    attempt = PingAttempt("a-1", Tracked(), f"p-{number}", NOW)
    return SignedAnswer(attempt, report, encode(report), header, wanted, 1.0)


@pytest.mark.parametrize("answers", [1, IN_THREAD_FROM - 1, IN_THREAD_FROM, 60])
async def test_each_answer_is_told_once_in_order(answers: int) -> None:
    told: list[tuple[str, CheckResult]] = []
    everything = asyncio.Event()
    given = [answer(number) for number in range(1, answers + 1)]

    def on_checked(one: SignedAnswer, result: CheckResult) -> None:
        told.append((one.attempt.ping_id, result))
        if len(told) == len(given):
            everything.set()

    checks = SignatureChecks(on_checked)
    for one in given:
        checks.add(one)
    assert told == [], "the answers of one turn are taken together"
    async with asyncio.timeout(20):
        await everything.wait()
    assert [ping_id for ping_id, _ in told] == [one.attempt.ping_id for one in given]
    for (ping_id, result), number in zip(told, range(1, answers + 1), strict=True):
        assert isinstance(result, BadSignatureError if number % 5 == 0 else Checked), ping_id
    checks.close()


async def test_answers_that_come_while_a_thread_checks_do_not_overtake() -> None:
    told: list[str] = []
    everything = asyncio.Event()

    def on_checked(one: SignedAnswer, _: CheckResult) -> None:
        told.append(one.attempt.ping_id)
        if len(told) == 32:
            everything.set()

    checks = SignatureChecks(on_checked)
    for number in range(1, 31):
        checks.add(answer(number))
    await asyncio.sleep(0)  # the turn in which they are taken
    checks.add(answer(31))
    await asyncio.sleep(0)
    checks.add(answer(32))
    async with asyncio.timeout(20):
        await everything.wait()
    assert told == [f"p-{number}" for number in range(1, 33)]
    checks.close()
