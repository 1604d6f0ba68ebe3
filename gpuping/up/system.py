"""`gpuping up`: every service in one process, on a nats-server of its own. Wiring, and nothing else."""

import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from types import ModuleType
from typing import NamedTuple

import msgspec

from bus import clock
from bus.client.fleet_client import FleetClient
from bus.errors import SettingsError
from bus.settings import Settings
from bus.transport import connection, embedded_server, layout
from gpuping import extras
from gpuping.client import discovery
from gpuping.up import local_agents
from gpuping.up.first_answer import FirstAnswer


class Options(NamedTuple):
    """What `up` is asked for besides the settings."""

    local_agent: bool = True
    test_agents: int = 0
    dashboard_interval: float | None = None


class System(NamedTuple):
    """What runs, for those who tell people about it."""

    settings: Settings  # with the address of the bus that is really used
    fleet_client: FleetClient
    gateway_url: str
    has_own_server: bool
    agents: list[local_agents.LocalAgent]
    first_answer: FirstAnswer


@asynccontextmanager
async def running(settings: Settings, options: Options) -> AsyncIterator[System]:
    """The whole system for the length of a block; its state stays in the data dir."""
    scheduler, storage, gateway = _imported()
    async with AsyncExitStack() as stack:
        stack.enter_context(discovery.locked(settings.data_dir))
        refuse_busy_port(settings)
        own_server = not (settings.NATS_URL or settings.NATS_CONTEXT)
        if own_server:
            server = await stack.enter_async_context(
                embedded_server.running(settings.data_dir, settings.NATS_PORT)
            )
            settings = msgspec.structs.replace(settings, NATS_URL=server.url)
        client = await stack.enter_async_context(connection.connected(settings, "gpuping-up"))
        await layout.ensure(client, settings)
        first_answer = await FirstAnswer.watch(client)
        for service in (scheduler, storage):
            await stack.enter_async_context(service.running(settings))
        handle = await stack.enter_async_context(gateway.running(settings))
        running_agents = local_agents.planned(
            settings, local=options.local_agent, tests=options.test_agents
        )
        for agent in running_agents:
            await local_agents.start(stack, settings, agent)
        stack.callback(discovery.remove, settings.data_dir)
        discovery.write(settings.data_dir, clock.utc_now(), client.address, handle.url)
        fleet_client = FleetClient(client, settings.PING_RESPONSE_TIMEOUT_SECONDS)
        yield System(
            settings=settings,
            fleet_client=fleet_client,
            gateway_url=handle.url,
            has_own_server=own_server,
            agents=running_agents,
            first_answer=first_answer,
        )


def _imported() -> tuple[ModuleType, ModuleType, ModuleType]:
    """Before anything is started: what is missing is said at once, and no import holds up a ping later."""
    with extras.needed("all"):
        import agentd.service  # noqa: F401  # for agents.start
        import gateway.service
        import scheduler.service
        import storage.service
    return scheduler.service, storage.service, gateway.service


def refuse_busy_port(settings: Settings) -> None:
    """Asked before anything is started. Port 0 takes any free one."""
    host, port = settings.GATEWAY_HOST, settings.GATEWAY_PORT
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise SettingsError(
                f"GATEWAY_PORT={port}: cannot listen on {host} ({error.strerror or error}): "
                "choose another with --port (0: any free one)"
            ) from None
