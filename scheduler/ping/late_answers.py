"""Hears the answers that come after a ping's time-out, and records that a miss was answered.

A miss that was answered late is no silence (`accounting/silence.py`). The ping may have been sent
by a scheduler that is gone. Therefore the agent's state holds what a late answer is compared with,
and the inbox follows from the scheduler's name, with which the ping's id begins: each scheduler
also listens to the inboxes of those that are gone, as far as the last misses of the fleet name
them. What is heard is written to `late.<id>`, which every scheduler reads at its start and watches.
"""

import asyncio
import re
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from datetime import datetime
from itertools import islice
from typing import NamedTuple

import structlog
from nats.aio.msg import Msg

from bus.contract import subjects
from bus.contract.messages import LateAnswer, UptimeReport, encode
from bus.errors import BadMessageError, BusError
from bus.identity.signed_report import HEADER, BadSignatureError, Expected, check
from bus.transport.batch import MAX_MESSAGES, Write, commit
from bus.transport.connection import Client
from scheduler.cluster.peers import Peers, instance_of
from scheduler.fleet.directory import Directory
from scheduler.fleet.tracked import Tracked
from scheduler.ping.accounting.silence import is_last_miss
from scheduler.ping.attempt import PingAttempt, previous_report
from scheduler.ping.pinger import PingLimits, check_sum, read_report

log = structlog.get_logger("scheduler.ping.late_answers")

MOST_INBOXES = 16  # of schedulers that are gone, the ones with the newest misses
LOOKED_AT_AT_ONCE = 1_000  # agents, before other tasks get a turn
RETRY_SECONDS = 1.0
# How long a late answer is kept beyond the longest interval, after which the next ping was made.
KEPT_SECONDS = 86_400
_INSTANCE = re.compile(r"[0-9a-z]{1,32}", re.ASCII)


class MissedPing(NamedTuple):
    """What the late answer to a missed ping must have."""

    nonce: str
    seq: int
    previous: str
    signing_key: str | None
    is_by_http: bool


class LateAnswers:
    """`receive` takes what comes for a ping that is not awaited any more.

    `active` are this scheduler's attempts whose outcome is not written yet, by agent_id. `now` is
    the schedulers' clock.
    """

    def __init__(
        self,
        client: Client,
        directory: Directory,
        peers: Peers,
        active: Mapping[str, PingAttempt],
        limits: PingLimits,
        now: Callable[[], datetime],
    ) -> None:
        self._client = client
        self._directory = directory
        self._peers = peers
        self._active = active
        self._limits = limits
        self._now = now
        self._unwritten: dict[str, LateAnswer] = {}  # by agent_id
        self._heard = asyncio.Event()
        self._look_wanted = asyncio.Event()
        self._listening: dict[str, AsyncExitStack] = {}  # by scheduler

    @property
    def inboxes(self) -> tuple[str, ...]:
        """The schedulers that are gone and to whose inboxes this one listens."""
        return tuple(self._listening)

    async def run(self) -> None:
        """Listens and writes until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._listen())
            tasks.create_task(self._write())

    def look_again(self) -> None:
        """Finds out anew which schedulers are gone: one came or went."""
        self._look_wanted.set()

    def abandon(self) -> None:
        """Forgets what is not written: the bucket is another one."""
        self._unwritten.clear()

    def receive(self, message: Msg) -> None:
        """Notes that the agent of a missed ping was there, where this is its report.

        Its window is not lost: the agent's next report covers it. The server's word that nobody
        listens may come late, too.
        """
        ping_id = message.subject.rpartition(".")[2]
        try:
            report = read_report(message.data)
            check_sum(report)
        except BadMessageError:
            return
        tracked = self._directory.get(report.agent_id)
        if tracked is None or not tracked.registered or tracked.late_ping_id == ping_id:
            return
        missed = self._missed_ping(tracked, report.agent_id, ping_id)
        if missed is None or report.ping_id != ping_id or report.nonce != missed.nonce:
            return
        header = (message.headers or {}).get(HEADER)
        reason = self._why_not_believed(missed, report, message.data, header)
        if reason is not None:
            log.warning("late_answer_ignored", agent_id=report.agent_id, detail=reason)
            return
        log.info("late_answer_heard", agent_id=report.agent_id, ping_id=ping_id)
        tracked.late_ping_id = ping_id
        self._unwritten[report.agent_id] = LateAnswer(ping_id=ping_id, heard_at=self._now())
        self._heard.set()

    def _missed_ping(self, tracked: Tracked, agent_id: str, ping_id: str) -> MissedPing | None:
        """Returns the agent's last miss, where it is this ping; it may not be written yet."""
        attempt = self._active.get(agent_id)
        if attempt is not None and attempt.ping_id == ping_id:
            if not attempt.may_be_answered_late:
                return None
            return MissedPing(
                attempt.nonce,
                attempt.seq,
                attempt.previous,
                attempt.signing_key,
                attempt.is_by_http,
            )
        state = tracked.state
        if state is None or state.silence is None or not is_last_miss(state, ping_id):
            return None
        signing_key = None
        is_by_http = False
        if tracked.entry is not None:
            signing_key = tracked.entry.signing_key
            is_by_http = tracked.entry.by_http
        return MissedPing(
            state.silence.nonce or "",
            state.ping_seq,
            previous_report(state, signing_key),
            signing_key,
            is_by_http,
        )

    def _why_not_believed(
        self,
        missed: MissedPing,
        report: UptimeReport,
        data: bytes,
        header: str | None,
    ) -> str | None:
        """Returns why the answer is not the host's; None where it is. As strict as in time."""
        if missed.signing_key is None:
            if missed.is_by_http or self._limits.believe_unsigned(self._now):
                return None
            return "no key of this host is known: enrol it"
        if header is None:
            return "it is not signed"
        expected = Expected(
            fleet=self._limits.fleet,
            key=missed.signing_key,
            seq=missed.seq,
            previous=missed.previous,
            request=None,
        )
        try:
            check(header, expected, report, data)
        except BadSignatureError as error:
            return str(error)
        return None

    async def _write(self) -> None:
        while True:
            await self._heard.wait()
            self._heard.clear()
            while self._unwritten:
                await self._write_some()

    async def _write_some(self) -> None:
        kept_seconds = round(self._directory.policy.max_seconds) + KEPT_SECONDS
        headers = {"Nats-TTL": f"{kept_seconds}s"}
        some = list(islice(self._unwritten.items(), MAX_MESSAGES))
        writes = []
        for agent_id, answer in some:
            writes.append(Write(subjects.late_key(agent_id), encode(answer), headers))
        try:
            await commit(self._client, writes)
        except BusError as error:
            log.warning("late_answers_write_failed", answers=len(some), detail=str(error))
            await asyncio.sleep(RETRY_SECONDS)
            return
        for agent_id, answer in some:
            if self._unwritten.get(agent_id) is answer:
                del self._unwritten[agent_id]

    async def _listen(self) -> None:
        try:
            while True:
                self._look_wanted.clear()
                wanted = await self._gone()
                for instance in set(self._listening).difference(wanted):
                    await self._listening.pop(instance).aclose()
                for instance in wanted:
                    if instance not in self._listening:
                        await self._listen_to(instance)
                await self._look_wanted.wait()
        finally:
            for stack in self._listening.values():
                await stack.aclose()

    async def _listen_to(self, instance: str) -> None:
        stack = AsyncExitStack()
        inbox = f"{subjects.ping_inbox(instance)}.*"
        await stack.enter_async_context(self._client.listening(inbox, self.receive))
        self._listening[instance] = stack
        log.debug("inbox_of_gone_scheduler_heard", instance=instance)

    async def _gone(self) -> list[str]:
        """Returns the schedulers that are not heard and to whose last pings an answer may come."""
        newest: dict[str, datetime] = {}
        agent_ids = self._directory.ids_that_may_have("missing")
        agent_ids += self._directory.ids_that_may_have("pending")
        for number, agent_id in enumerate(agent_ids, 1):
            if number % LOOKED_AT_AT_ONCE == 0:
                await asyncio.sleep(0)
            tracked = self._directory.get(agent_id)
            if tracked is None or tracked.state is None:
                continue
            last = tracked.state.last
            instance = instance_of(last.ping_id)
            if self._peers.hears(instance) or not is_last_miss(tracked.state, last.ping_id):
                continue
            if _INSTANCE.fullmatch(instance):
                newest[instance] = max(last.pinged_at, newest.get(instance, last.pinged_at))
        gone = sorted(newest, key=newest.__getitem__, reverse=True)
        return gone[:MOST_INBOXES]
