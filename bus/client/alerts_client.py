"""Every question that the alerts service answers, as one typed call each.

The calls raise a BusError as those of `bus/client/fleet_client.py` do.
"""

from typing import TypeVar

from msgspec import Struct

from bus.contract import subjects
from bus.contract.alerts import (
    Alerts,
    AlertsRequest,
    AlertsStats,
    EndSilenceRequest,
    Silence,
    SilenceRequest,
    TestRequest,
    TestResults,
)
from bus.errors import BadAnswerError, BadMessageError
from bus.transport.connection import Client
from bus.transport.micro_services import ask

ALERTS = "the alerts service"
ANSWER_SECONDS = 5.0
TEST_SECONDS = 30.0  # longer than a target may take

ReplyT = TypeVar("ReplyT")


class AlertsClient:
    """Asks over `client`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def alerts(
        self,
        request: AlertsRequest,
        timeout: float = ANSWER_SECONDS,
    ) -> Alerts:
        """What is wrong, and how the telling goes."""
        return await self._ask(subjects.LIST_ALERTS, request, Alerts, timeout)

    async def test(self, request: TestRequest) -> TestResults:
        """Has a test message sent at once. RefusedError 404 for a target that is not there."""
        return await self._ask(subjects.TEST_ALERTS, request, TestResults, TEST_SECONDS)

    async def silence(self, request: SilenceRequest) -> Silence:
        """Makes a silence."""
        return await self._ask(subjects.SILENCE_ALERTS, request, Silence)

    async def end_silence(self, request: EndSilenceRequest) -> Silence:
        """Ends a silence and returns it as it was. RefusedError 404 where there is none."""
        return await self._ask(subjects.END_SILENCE, request, Silence)

    async def stats(self, timeout: float = ANSWER_SECONDS) -> AlertsStats:
        """The service's figures."""
        return await self._ask(subjects.ALERTS_STATS, None, AlertsStats, timeout)

    async def _ask(
        self,
        subject: str,
        request: Struct | None,
        reply: type[ReplyT],
        timeout: float = ANSWER_SECONDS,
    ) -> ReplyT:
        try:
            return await ask(self._client, subject, request, reply, who=ALERTS, timeout=timeout)
        except BadMessageError as error:
            raise BadAnswerError(f"the answer of {ALERTS} cannot be read: {error}") from None
