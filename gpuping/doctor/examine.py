"""`gpuping doctor`: checks this machine and the bus, and says what to do about what it finds."""

from collections.abc import Awaitable, Callable

import nats.errors

from bus.errors import GpupingError
from bus.settings import Settings
from bus.transport.connection import Client
from gpuping.client import bus_source, discovery
from gpuping.client.rest_source import RestSource
from gpuping.doctor import bus_checks, machine_checks
from gpuping.output.findings import Finding, failure, note, ok


async def examine(settings: Settings) -> list[Finding]:
    """Every finding, in the order in which things depend on each other."""
    findings = [
        machine_checks.disk(settings),
        machine_checks.clock(settings),
        await machine_checks.gpus(settings),
    ]
    running = discovery.find(settings.data_dir)
    if running:
        findings.append(
            ok("up", f"`gpuping up` runs (pid {running.pid}), dashboard {running.gateway_url}/")
        )
    else:
        findings.append(note("up", f"no `gpuping up` runs on {settings.data_dir}"))
    findings += await _bus(settings)
    if running:
        findings.append(await _gateway(running.gateway_url))
    return findings


async def answers(settings: Settings, service: str) -> list[Finding]:
    """Whether one service answers on the bus: for health checks, quick and without advice."""
    async with bus_source.connected(settings) as client:
        return [await _safely(service, lambda: bus_checks.answers(client, f"gpuping-{service}"))]


async def _bus(settings: Settings) -> list[Finding]:
    try:
        async with bus_source.connected(settings) as client:
            return await _asked(client, settings)
    except bus_source.NothingRunsError as error:
        return [
            failure(
                "bus", str(error), "start `gpuping up`, or set NATS_URL to the bus that you use"
            )
        ]


async def _asked(client: Client, settings: Settings) -> list[Finding]:
    checks: dict[str, Callable[[], Awaitable[Finding]]] = {
        "bus": lambda: bus_checks.server(client),
        "permissions": lambda: bus_checks.permissions(client),
        "jetstream": lambda: bus_checks.jetstream(client),
        "streams": lambda: bus_checks.streams(client, settings),
        "services": lambda: bus_checks.services(client),
        "bus clock": lambda: bus_checks.server_clock(client),
    }
    return [await _safely(name, check) for name, check in checks.items()]


async def _safely(name: str, check: Callable[[], Awaitable[Finding]]) -> Finding:
    """One check that breaks must not hide what the others find."""
    try:
        return await check()
    except (TimeoutError, GpupingError, nats.errors.Error) as error:
        return failure(name, f"{type(error).__name__}: {error}", "see the log of the bus")


async def _gateway(url: str) -> Finding:
    try:
        await RestSource(url, None).ready()
    except GpupingError as error:
        return failure("gateway", str(error), "see the log of `gpuping up`")
    return ok("gateway", f"{url} is ready")
