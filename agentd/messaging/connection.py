"""The agent's line to the bus: connects, serves its endpoints, registers, and begins again when it is cut off.

Nothing that happens to the bus may end an agent: the ledger goes on without one.
"""

import asyncio
from typing import Any

import nats.errors
import structlog
from nats.aio.client import Client
from nats.micro.service import Service

from agentd.messaging import registration
from agentd.messaging.registration import Enrolled
from bus.contract import subjects
from bus.contract.agent_answers import BusHealth
from bus.errors import SettingsError
from bus.settings import Settings
from bus.transport import connection, micro_services
from bus.transport.micro_services import Endpoint

log = structlog.get_logger("agentd.messaging.connection")

BEGIN_AGAIN_SECONDS = 2.0
STOP_SECONDS = 1.0
DESCRIPTION = "Uptime of this host's GPUs"


class Link:
    """`serving` is set once the agent answers on the bus, `registered` once the registry knows it."""

    def __init__(self, settings: Settings, agent_id: str, metadata: dict[str, Any] | None) -> None:
        self.serving = asyncio.Event()
        self.registered = asyncio.Event()
        self._settings = settings
        self._agent_id = agent_id
        self._metadata = metadata
        self._client: Client | None = None

    def health(self) -> BusHealth:
        """The connection as the agent's health shows it."""
        client = self._client
        return BusHealth(
            connected=client is not None and client.is_connected,
            reconnects=client.stats["reconnects"] if client else 0,
            registered=self.registered.is_set(),
        )

    async def run(self, endpoints: list[Endpoint], enrolled: Enrolled) -> None:
        """On the bus for ever. Raises SettingsError for settings that no waiting will mend."""
        told = ""
        while True:
            try:
                await self._once(endpoints, enrolled)
            except SettingsError:
                raise
            except Exception as error:  # noqa: BLE001  # bad credentials, an odd server: the ledger is worth more
                text = f"{type(error).__name__}: {error}"
                if text != told:
                    log.error(
                        "off_the_bus", agent=self._agent_id, detail=text, action="trying again"
                    )
                told = text
            await asyncio.sleep(BEGIN_AGAIN_SECONDS)

    async def _once(self, endpoints: list[Endpoint], enrolled: Enrolled) -> None:
        again = asyncio.Event()

        async def reconnected() -> None:
            again.set()

        name, inbox = (
            subjects.agent_connection(self._agent_id),
            subjects.inbox_prefix(self._agent_id),
        )
        async with connection.connected(
            self._settings, name, inbox_prefix=inbox, reconnected=reconnected
        ) as client:
            self._client = client
            service = await micro_services.serve(
                client, subjects.AGENTD_SERVICE, DESCRIPTION, endpoints
            )
            self.serving.set()
            try:
                await registration.keep(client, self._agent_id, self._metadata, again, enrolled)
            finally:
                self.serving.clear()
                await _stop(service)


async def _stop(service: Service) -> None:
    """A bus that is gone does not hold up an exit."""
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await service.stop()
    except (TimeoutError, nats.errors.Error):
        log.debug("service_left_unstopped")
