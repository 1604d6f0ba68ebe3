"""Gateways tell each other over the bus which browser sessions were signed out.

A gateway that starts, or that was cut off, asks the others for what it has missed: an empty message
is that question.
"""

import nats.errors
import structlog
from nats.aio.msg import Msg

from bus.clock import utc_now
from bus.contract import subjects
from bus.transport.connection import Client
from gateway.web.access.browser_sessions import Sessions

log = structlog.get_logger("gateway.sign_outs")

_ASK = b""


class SignOuts:
    """The sign-outs at this gateway and at others that have the same session key."""

    def __init__(self, client: Client, sessions: Sessions) -> None:
        self._client = client
        self._sessions = sessions

    async def tell(self, notice: bytes) -> None:
        """Tells the other gateways of a session that was ended here. Logs where it cannot."""
        if notice:
            await self._publish(notice)

    async def listen(self) -> None:
        """Hears the other gateways from now on."""
        await self._client.subscribe(subjects.SESSION_ENDED, cb=self._on_message)
        self._client.on_reconnect(self._ask)
        await self._ask()

    async def _ask(self) -> None:
        await self._publish(_ASK)

    async def _on_message(self, message: Msg) -> None:
        if message.data == _ASK:
            await self.tell(self._sessions.notice_of_all())
            return
        self._sessions.hear(message.data, utc_now().timestamp())

    async def _publish(self, data: bytes) -> None:
        try:
            await self._client.publish(subjects.SESSION_ENDED, data)
        except (nats.errors.Error, OSError) as error:
            log.warning("sign_out_publish_failed", detail=str(error))
