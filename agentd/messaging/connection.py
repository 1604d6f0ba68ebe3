"""The agent's connection to the bus: connects, serves, registers, and starts again after a loss.

No failure of the bus ends an agent: the ledger runs without one.
"""

import asyncio

import structlog

from agentd.messaging import enrolment, registration
from agentd.messaging.registration import MakeRegistration, OnRegistered
from bus.background import background
from bus.contract import subjects
from bus.contract.agent_answers import BusHealth
from bus.errors import SettingsError
from bus.identity.host import HostIdentity
from bus.settings import Settings
from bus.transport import connection, micro_services
from bus.transport.micro_services import Endpoint

log = structlog.get_logger("agentd.messaging.connection")

RETRY_SECONDS = 2.0
DESCRIPTION = "Uptime of this host's GPUs"


class BusSession:
    """`serving` is set while the agent answers on the bus, `registered` once it is registered."""

    def __init__(
        self,
        settings: Settings,
        agent_id: str,
        *,
        may_register: asyncio.Event,
        registration: MakeRegistration,
        identity: HostIdentity | None = None,
    ) -> None:
        """Registers with what `registration` returns, once `may_register` is set.

        Without `identity` the bus is used as whoever the settings name, and reports are not signed.
        """
        self._identity = identity
        self.serving = asyncio.Event()
        self.registered = asyncio.Event()
        self._settings = settings
        self._agent_id = agent_id
        self._may_register = may_register
        self._registration = registration
        self._client: connection.Client | None = None

    def health(self) -> BusHealth:
        """The connection as the agent's health shows it."""
        connected = False
        reconnects = 0
        refused_replies = 0
        if self._client is not None:
            connected = self._client.is_connected
            reconnects = self._client.stats["reconnects"]
            refused_replies = self._client.refused_reply_count
        expire_at = None
        if self._identity is not None:
            expire_at = self._identity.expires_at
        return BusHealth(
            connected=connected,
            reconnects=reconnects,
            registered=self.registered.is_set(),
            refused_replies=refused_replies,
            credentials_expire_at=expire_at,
        )

    async def run(
        self,
        endpoints: list[Endpoint],
        on_registered: OnRegistered,
    ) -> None:
        """Serves on the bus for ever.

        Raises SettingsError, because waiting does not correct a setting.
        """
        last_error = ""
        while True:
            try:
                await self._serve_once(endpoints, on_registered)
            except SettingsError:
                raise
            # Nothing that a server answers may end the ledger.
            except Exception as error:  # noqa: BLE001
                text = f"{type(error).__name__}: {error}"
                if text != last_error:
                    log.error(
                        "bus_session_failed",
                        agent=self._agent_id,
                        detail=text,
                        action="trying again",
                    )
                last_error = text
            await asyncio.sleep(RETRY_SECONDS)

    async def _serve_once(
        self,
        endpoints: list[Endpoint],
        on_registered: OnRegistered,
    ) -> None:
        register_again = asyncio.Event()

        async def reconnected() -> None:
            self.registered.clear()  # this bus may be another one, or may have lost its registry
            register_again.set()

        name = subjects.agent_connection(self._agent_id)
        inbox_prefix = subjects.inbox_prefix(self._agent_id)
        async with connection.connected(
            self._settings,
            name,
            inbox_prefix=inbox_prefix,
            reconnected=reconnected,
            slowest_retry_seconds=connection.SLOWEST_RETRY_SECONDS,
        ) as client:
            self._client = client
            service = await micro_services.serve(
                client,
                subjects.AGENTD_SERVICE,
                DESCRIPTION,
                endpoints,
            )
            self.serving.set()
            try:
                await self._may_register.wait()
                async with background() as start:
                    if self._identity is not None:
                        names_keys = enrolment.KeyAnnouncement(
                            client,
                            self._settings,
                            self._identity,
                            self._agent_id,
                            register_again.set,
                        )
                        start(names_keys.run())
                        await names_keys.first_attempt.wait()
                    await registration.keep_registered(
                        client,
                        self._agent_id,
                        self._registration,
                        register_again,
                        on_registered,
                    )
            finally:
                self.serving.clear()
                await micro_services.stop(service)
