"""Runs the checks of `gpuping doctor` in order."""

from collections.abc import Awaitable

import nats.errors

from bus.errors import BusError, GpupingError
from bus.settings import Settings
from gpuping.client import bus_file
from gpuping.client.bus_connection import NothingRunsError, connect_to_running
from gpuping.client.rest_source import RestSource
from gpuping.doctor import bus_checks, certificate_check, machine_checks, storage_checks
from gpuping.output.findings import Finding, failure, note, ok


async def examine(settings: Settings) -> list[Finding]:
    """Every finding, each after those that it depends on."""
    settings = bus_file.with_demo_alone(settings)
    findings = [
        machine_checks.disk(settings),
        machine_checks.clock(),
        await machine_checks.gpus(settings),
        machine_checks.expiring_credentials(settings),
        *certificate_check.check(settings),
    ]
    running = bus_file.find(settings.data_dir)
    if running:
        detail = f"`gpuping up` runs (pid {running.pid}), dashboard {running.gateway_url}/"
        findings.append(ok("up", detail))
    else:
        findings.append(note("up", f"no `gpuping up` runs on {settings.data_dir}"))
    findings += await _check_bus(settings)
    if running:
        findings.append(await _check_gateway(running.gateway_url))
    return findings


async def check_service(settings: Settings, service: str) -> list[Finding]:
    """Whether one service answers on the bus. Quick and without advice, for health checks.

    Raises NothingRunsError when there is no bus.
    """
    async with connect_to_running(settings) as client:
        answer = bus_checks.service_answers(client, f"gpuping-{service}")
        return [await _finding(service, answer)]


async def _check_bus(settings: Settings) -> list[Finding]:
    try:
        async with connect_to_running(settings) as client:
            return [
                await _finding("bus", bus_checks.server(client)),
                await _finding("permissions", bus_checks.permissions(client)),
                await _finding("jetstream", bus_checks.jetstream(client)),
                await _finding("streams", bus_checks.streams(client, settings)),
                await _finding("services", bus_checks.services(client)),
                await _finding("work", bus_checks.work(client)),
                await _finding("storages", storage_checks.followers(client)),
                *await _several("schedulers", bus_checks.schedulers(client)),
                *await _several("history", bus_checks.history(client)),
                await _optional("hosts", bus_checks.silent_hosts(client)),
                await _optional("by http", bus_checks.asked_by_http(client, settings)),
                await _finding("bus clock", bus_checks.server_clock(client)),
                await _optional("scheduler clocks", bus_checks.scheduler_clocks(client)),
            ]
    except NothingRunsError as error:
        advice = "start `gpuping up`, or set NATS_URL to the bus that you use"
        return [failure("bus", str(error), advice)]
    except BusError as error:  # it is there, and refuses or is not believed
        advice = (
            "NATS_CREDS must be of this fleet, not expired and not revoked (`gpuping creds list`); "
            "NATS_CA names who signed the certificate"
        )
        return [failure("bus", str(error), advice)]


async def _optional(name: str, check: Awaitable[Finding]) -> Finding:
    """A note where the service does not answer: the services' finding says that already."""
    try:
        return await check
    except BusError as error:
        return note(name, str(error))


async def _several(name: str, check: Awaitable[list[Finding]]) -> list[Finding]:
    """The findings of one answer, or a note where the service does not answer."""
    try:
        return await check
    except BusError as error:
        return [note(name, str(error))]


async def _finding(name: str, check: Awaitable[Finding]) -> Finding:
    """The check's finding. A check that raises becomes a failure, so that the others still run."""
    try:
        return await check
    except GpupingError as error:
        return failure(name, str(error), "see the log of the bus")
    except (TimeoutError, nats.errors.Error) as error:
        return failure(name, f"{type(error).__name__}: {error}", "see the log of the bus")


async def _check_gateway(url: str) -> Finding:
    try:
        await RestSource(url, None).ready()
    except GpupingError as error:
        return failure("gateway", str(error), "see the log of `gpuping up`")
    return ok("gateway", f"{url} is ready")
