"""Composes `gpuping up`: every service in one process, on a nats-server of its own."""

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from types import ModuleType
from typing import NamedTuple

from bus import clock
from bus.client.fleet_client import FleetClient
from bus.contract import subjects
from bus.errors import SettingsError
from bus.identity.roles import RoleName
from bus.settings import Settings
from bus.transport import connection, layout
from gpuping import extras
from gpuping.alerts import service as alerts_service
from gpuping.alerts.rules import file_watch as alerts_file
from gpuping.client import bus_file
from gpuping.client.data_dir_lock import lock_data_dir
from gpuping.client.own_server import running as running_own_server
from gpuping.enrolment import service as enrolment_service
from gpuping.up import demo, local_agents
from gpuping.up.first_answer import FirstAnswer


class Options(NamedTuple):
    """What the command line chooses besides the settings. `dashboard_interval` is in seconds."""

    local_agent: bool = True
    test_agents: int = 0
    dashboard_interval: float | None = None
    demo: bool = False


class System(NamedTuple):
    """The running system. `settings` hold the address of the bus that is really used."""

    settings: Settings
    fleet_client: FleetClient
    gateway_url: str
    has_own_server: bool
    agents: list[local_agents.LocalAgent]
    room_remark: str | None
    first_answer: FirstAnswer
    is_demo: bool = False


@asynccontextmanager
async def running(settings: Settings, options: Options) -> AsyncIterator[System]:
    """The whole system for the length of a block. Its state stays in the data dir."""
    scheduler, storage, gateway = _import_services()
    async with AsyncExitStack() as stack:
        stack.enter_context(lock_data_dir(settings.data_dir))
        check_gateway_port(settings)
        alerts_file.read(settings)  # one that cannot be used is refused before anything starts
        has_own_server = not (settings.NATS_URL or settings.NATS_CONTEXT)
        own_server = None
        settings_of, settings_of_agent = _settings_on_a_given_bus(settings)
        if has_own_server:
            own_server = await stack.enter_async_context(
                running_own_server(settings, settings.NATS_PORT)
            )
            settings = own_server.settings
            settings_of = own_server.settings_of
            settings_of_agent = own_server.settings_of_agent
        client = await stack.enter_async_context(
            connection.connected(
                settings_of("operator"),
                "gpuping-up",
                inbox_prefix=subjects.service_inbox("operator"),
            )
        )
        if own_server is None:
            await layout.ensure(client, settings, grow=True)
        room_remark = await layout.room_remark(client, settings)
        first_answer = await FirstAnswer.watch(client)
        if own_server is not None:
            enrolment = enrolment_service.running(
                settings_of("enrolment"), own_server.identities.authority
            )
            await stack.enter_async_context(enrolment)
        if options.demo:
            await _start_demo(stack, settings, settings_of, settings_of_agent)
        await stack.enter_async_context(scheduler.running(settings_of("scheduler")))
        await stack.enter_async_context(storage.running(settings_of("storage")))
        running_gateway = await stack.enter_async_context(gateway.running(settings_of("gateway")))
        if bus_file.has_role_credentials(settings, "alerts"):
            await stack.enter_async_context(alerts_service.running(settings_of("alerts")))
        agents = local_agents.planned_agents(
            settings, for_this_machine=options.local_agent, tests=options.test_agents
        )
        for agent in agents:
            await local_agents.start(stack, settings_of_agent(agent.agent_id), agent)
        if options.demo:
            agents += demo.planned_agents(settings)
        stack.callback(bus_file.remove, settings.data_dir)
        bus_file.write(
            settings.data_dir,
            clock.utc_now(),
            client.address,
            running_gateway.url,
            operator_creds=settings_of("operator").NATS_CREDS,
        )
        yield System(
            settings=settings,
            fleet_client=FleetClient(client, settings.PING_RESPONSE_TIMEOUT_SECONDS),
            gateway_url=running_gateway.url,
            has_own_server=has_own_server,
            agents=agents,
            room_remark=room_remark,
            first_answer=first_answer,
            is_demo=options.demo,
        )


SettingsOf = Callable[[RoleName], Settings]
SettingsOfAgent = Callable[[str], Settings]


async def _start_demo(
    stack: AsyncExitStack,
    settings: Settings,
    settings_of: SettingsOf,
    settings_of_agent: SettingsOfAgent,
) -> None:
    """Starts the demo's agents, behind each an invented month of history at the first start."""
    last_states = await demo.seed_history(settings_of("storage"))
    for agent in demo.planned_agents(settings):
        await local_agents.start(stack, settings_of_agent(agent.agent_id), agent)
    if last_states is not None:
        await demo.seed_bucket(settings_of("scheduler"), last_states)


def _settings_on_a_given_bus(settings: Settings) -> tuple[SettingsOf, SettingsOfAgent]:
    """On a bus that runs already, NATS_CREDS names one identity, or a folder with one a role."""

    def settings_of(role: RoleName) -> Settings:
        return bus_file.with_role_credentials(settings, role)

    def settings_of_agent(agent_id: str) -> Settings:
        return bus_file.with_role_credentials(settings, "agent", agent_id)

    return settings_of, settings_of_agent


def _import_services() -> tuple[ModuleType, ModuleType, ModuleType]:
    """The modules of scheduler, storage and gateway.

    They are imported before anything starts, so that a missing package is reported at once and no
    import delays a ping later. agentd is imported for `local_agents.start`.
    """
    with extras.needed("all"):
        import agentd.service  # noqa: F401  # see the docstring
        import gateway.service
        import scheduler.service
        import storage.service
    return scheduler.service, storage.service, gateway.service


def check_gateway_port(settings: Settings) -> None:
    """Raises SettingsError when the gateway cannot listen on its port. Port 0 is any free one."""
    host = settings.GATEWAY_HOST
    port = settings.GATEWAY_PORT
    family = socket.AF_INET
    if ":" in host:
        family = socket.AF_INET6
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise SettingsError(
                f"GATEWAY_PORT={port}: cannot listen on {host} ({error.strerror or error}): "
                "choose another with --port (0: any free one)"
            ) from None
