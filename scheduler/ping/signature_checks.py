"""Checks the signatures of answers: few of them here and now, many at once in a thread.

Ed25519 takes 60 us of the 90 that a check takes, and PyNaCl releases the interpreter's lock
meanwhile. Handing one check to a thread costs 40 us of the event loop, which is more than it saves;
handing over 16 costs 7 us each. So the answers of one turn of the loop are taken together: at a
thousand pings a second that is one or two, which are checked here; at the highest rate it is
dozens, and the loop goes on while a thread checks them. What arrives meanwhile is the thread's next
work, all of it at once (docs/decisions/identities.md).
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from msgspec import Struct

from bus.contract.messages import UptimeReport
from bus.identity.signed_report import BadSignatureError, Checked, Expected, check
from scheduler.ping.attempt import PingAttempt

IN_THREAD_FROM = 8  # answers of one turn
THREADS = 1  # more would compete with nats-server and with each other for the interpreter's lock


class SignedAnswer(Struct, frozen=True):
    """An answer to a ping, with a header that is to be checked."""

    attempt: PingAttempt
    report: UptimeReport
    data: bytes
    header: str
    expected: Expected
    response_ms: float  # how long it took


CheckResult = Checked | BadSignatureError


class SignatureChecks:
    """Calls `on_checked` in the event loop once for each answer that was added, in their order."""

    def __init__(self, on_checked: Callable[[SignedAnswer, CheckResult], None]) -> None:
        self._on_checked = on_checked
        self._added: list[SignedAnswer] = []
        self._threads: ThreadPoolExecutor | None = None
        self._is_thread_busy = False

    def add(self, answer: SignedAnswer) -> None:
        """Has an answer checked, together with those that come in the same turn of the loop."""
        if not self._added:
            asyncio.get_running_loop().call_soon(self._check_added)
        self._added.append(answer)

    def close(self) -> None:
        """Ends the thread. What it has not begun is dropped."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def _check_added(self) -> None:
        if self._is_thread_busy or not self._added:
            return
        answers = self._added
        self._added = []
        if len(answers) < IN_THREAD_FROM:
            self._tell(answers, check_all(answers))
            return
        if self._threads is None:
            self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="signatures")
        self._is_thread_busy = True
        loop = asyncio.get_running_loop()
        checking = loop.run_in_executor(self._threads, check_all, answers)
        checking.add_done_callback(lambda done: self._on_batch_checked(answers, done))

    def _on_batch_checked(
        self,
        answers: list[SignedAnswer],
        done: asyncio.Future[list[CheckResult]],
    ) -> None:
        self._is_thread_busy = False
        if not done.cancelled():
            self._tell(answers, done.result())
            self._check_added()

    def _tell(self, answers: list[SignedAnswer], results: list[CheckResult]) -> None:
        for answer, result in zip(answers, results, strict=True):
            self._on_checked(answer, result)


def check_all(answers: list[SignedAnswer]) -> list[CheckResult]:
    """Checks answers; where a signature does not hold, the error stands in the place of a result.

    It touches nothing that the event loop changes.
    """
    results: list[CheckResult] = []
    for answer in answers:
        try:
            results.append(check(answer.header, answer.expected, answer.report, answer.data))
        except BadSignatureError as error:
            results.append(error)
    return results
