"""What the alerts service answers: what is wrong, test messages, and silences."""

import secrets
from collections import Counter
from collections.abc import Callable
from datetime import timedelta

from nats.micro.request import Request

from bus.client import audit
from bus.client.audit import UNNAMED_ACTOR
from bus.clock import utc_now
from bus.contract import subjects
from bus.contract.alerts import (
    ActiveAlert,
    Alerts,
    AlertsRequest,
    AlertsStats,
    EndSilenceRequest,
    Notification,
    SentNotification,
    Severity,
    Silence,
    SilenceRequest,
    TestRequest,
    TestResults,
)
from bus.contract.messages import decode
from bus.errors import RefusedError
from bus.transport import large_answers
from bus.transport.connection import Client
from bus.transport.large_answers import fitting
from bus.transport.micro_services import Endpoint
from gpuping.alerts.board import Board, delete, put
from gpuping.alerts.deliver.channels import Channels
from gpuping.alerts.deliver.dispatcher import Dispatcher
from gpuping.alerts.deliver.planning import is_silenced
from gpuping.alerts.deliver.sender import UNSENT, Sender
from gpuping.alerts.deliver.testing import send_test
from gpuping.alerts.detect.findings import TOLD_AT_ITS_END
from gpuping.alerts.rules.rulebook import RANK, Rulebook

MOST_ACTIVE = 1000  # in one answer
MOST_SILENCES = 200  # in force at once: every change is compared with each
ID_BYTES = 6


class AlertsEndpoints:
    """One handler for each subject."""

    def __init__(
        self,
        client: Client,
        board: Board,
        rulebook: Callable[[], Rulebook],
        dispatcher: Dispatcher,
        sender: Sender,
    ) -> None:
        self._client = client
        self._board = board
        self._rulebook = rulebook
        self._dispatcher = dispatcher
        self._sender = sender

    def endpoints(self) -> list[Endpoint]:
        """What the micro service serves; permissions say who may ask what."""
        return [
            Endpoint("list", subjects.LIST_ALERTS, self._on_list),
            Endpoint("test", subjects.TEST_ALERTS, self._on_test),
            Endpoint("silence", subjects.SILENCE_ALERTS, self._on_silence),
            Endpoint("end-silence", subjects.END_SILENCE, self._on_end_silence),
            Endpoint("stats", subjects.ALERTS_STATS, self._on_stats),
        ]

    async def _on_list(self, request: Request) -> Alerts:
        body = AlertsRequest()
        if request.data:
            body = decode(request.data, AlertsRequest)
        active = self._active()
        newest = self._board.notifications.kept()
        newest.sort(key=lambda kept: kept.value.made_at, reverse=True)
        sent = [_shown(kept.value) for kept in newest[: body.limit]]
        room = large_answers.room(self._client)
        return Alerts(
            active=fitting(active[:MOST_ACTIVE], room // 2),
            total=len(active),
            notifications=fitting(sent, room // 4),
            silences=fitting(self._silences(), room // 4),
            held=self._dispatcher.held,
            targets=tuple(target.name for target in self._rulebook().file.target),
        )

    async def _on_test(self, request: Request) -> TestResults:
        body = TestRequest()
        if request.data:
            body = decode(request.data, TestRequest)
        return await send_test(Channels(self._rulebook().file), body.target)

    async def _on_silence(self, request: Request) -> Silence:
        body = decode(request.data, SilenceRequest)
        if len(self._silences()) >= MOST_SILENCES:
            raise RefusedError(
                409, f"there are {MOST_SILENCES} silences already: end one, or match more with one"
            )
        now = utc_now()
        silence = Silence(
            silence_id=secrets.token_hex(ID_BYTES),
            match=dict(body.match),
            until=now + timedelta(seconds=body.seconds),
            reason=body.reason,
            author=body.author or UNNAMED_ACTOR,
            made_at=now,
        )
        key = subjects.silence_key(silence.silence_id)
        keep_seconds = int(body.seconds) + 60
        await self._board.write([put(key, silence, None, keep_seconds=keep_seconds)])
        await audit.record(self._client, "silence", silence.author, after=silence)
        return silence

    async def _on_end_silence(self, request: Request) -> Silence:
        body = decode(request.data, EndSilenceRequest)
        key = subjects.silence_key(body.silence_id)
        kept = self._board.silences.get(key)
        if kept is None:
            raise RefusedError(404, f"there is no silence {body.silence_id}")
        await self._board.write([delete(key, kept)])
        author = body.author or UNNAMED_ACTOR
        await audit.record(self._client, "end-silence", author, before=kept.value)
        return kept.value

    async def _on_stats(self, _: Request) -> AlertsStats:
        return self.stats()

    def stats(self) -> AlertsStats:
        """The figures of this process, and of the bucket."""
        active: Counter[str] = Counter()
        by_severity: Counter[Severity] = Counter()
        for alert in self._active():
            active[alert.rule] += 1
            if not alert.silenced:
                by_severity[alert.severity] += 1
        now = utc_now()
        waiting = retrying = failed = 0
        oldest = now
        for notification in self._board.notifications.values():
            if notification.state == "failed":
                failed += 1
            if notification.state in UNSENT:
                waiting += 1
                oldest = min(oldest, notification.made_at)
                if notification.error is not None:
                    retrying += 1
        return AlertsStats(
            active=dict(active),
            by_severity=dict(by_severity),
            held=self._dispatcher.held,
            waiting=waiting,
            retrying=retrying,
            failed=failed,
            oldest_waiting_seconds=(now - oldest).total_seconds(),
            sent=dict(self._sender.sent),
        )

    def _silences(self) -> list[Silence]:
        now = utc_now()
        in_force = [silence for silence in self._board.silences.values() if silence.until > now]
        in_force.sort(key=lambda silence: silence.until)
        return in_force

    def _active(self) -> list[ActiveAlert]:
        """What is wrong and told, the most severe first, then the oldest."""
        rulebook = self._rulebook()
        silences = self._silences()
        found = []
        for conditions in self._board.conditions.values():
            for condition in conditions.active.values():
                if condition.rule == TOLD_AT_ITS_END or not condition.told:
                    continue
                decision = rulebook.decide(condition.rule, condition.labels)
                if not decision.is_told:
                    continue
                labels = condition.labels | {"rule": condition.rule, "about": conditions.name}
                found.append(
                    ActiveAlert(
                        about=conditions.name,
                        rule=condition.rule,
                        severity=decision.severity,
                        since=condition.since,
                        detail=condition.detail,
                        labels=condition.labels,
                        silenced=is_silenced(labels, silences),
                    )
                )
        found.sort(key=lambda alert: (-RANK[alert.severity], alert.since, alert.about))
        return found


def _shown(notification: Notification) -> SentNotification:
    next_attempt_at = None
    if notification.state in UNSENT:
        next_attempt_at = notification.next_attempt_at
    return SentNotification(
        notification_id=notification.notification_id,
        target=notification.target,
        severity=notification.severity,
        title=notification.title,
        changes=len(notification.changes),
        made_at=notification.made_at,
        state=notification.state,
        attempts=notification.attempts,
        next_attempt_at=next_attempt_at,
        error=notification.error,
        sent_at=notification.sent_at,
    )
