"""What `up` tells the person who started it: addresses, agents, the first answered ping, the dashboard."""

import asyncio
import os
from pathlib import Path

from rich.console import Console, Group
from rich.text import Text

from bus.clock import boottime
from bus.contract.questions import Ping
from bus.errors import BusError
from bus.runner import Lifecycle
from gpuping.client.bus_source import BusSource
from gpuping.output import terminal
from gpuping.output.top import screen
from gpuping.up.system import System

NEXT_PING_AFTER_SECONDS = 2.0


def process_started() -> float:
    """When this process was started, in seconds of CLOCK_BOOTTIME: who waits for `up` waits for its imports too."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[19])
    return ticks / os.sysconf("SC_CLK_TCK")


async def until_stopped(
    system: System,
    lifecycle: Lifecycle,
    console: Console,
    *,
    started: float,
    dashboard_interval: float | None,
) -> None:
    """Tells, and returns when it is time to stop. `started` is BOOTTIME in seconds."""
    console.print(banner(system))
    console.print(
        Text(
            f"ready after {boottime() - started:.1f} s; Ctrl-C stops it, everything is kept",
            "bright_black",
        )
    )
    async with asyncio.TaskGroup() as group:
        telling = [group.create_task(_tell_first_answer(system, console, started))]
        if dashboard_interval:
            telling.append(group.create_task(_print_dashboard(system, console, dashboard_interval)))
        await lifecycle.until_stopped()
        for task in telling:
            task.cancel()
    console.print("stopping ...", style="bright_black")


def banner(system: System) -> Group:
    """Where everything is."""
    server = "its own nats-server" if system.has_own_server else "a server that runs already"
    lines = [
        ("dashboard", Text(f"{system.gateway_url}/", "bold cyan")),
        ("bus", Text(f"{system.settings.nats_url}").append(f"  {server}", "bright_black")),
        ("data", Text(str(system.settings.data_dir))),
        ("agents", agents_line(system)),
    ]
    return Group(
        "", *(Text(f"  {name:<11}", "bright_black").append_text(value) for name, value in lines), ""
    )


def agents_line(system: System) -> Text:
    """Which agents run in this process, and which of them are not real."""
    if not system.agents:
        return Text("none here")
    real = [agent.agent_id for agent in system.agents if not agent.scenario]
    played: dict[str, list[str]] = {}
    for agent in system.agents:
        if agent.scenario:
            played.setdefault(agent.scenario, []).append(agent.agent_id)
    parts = [_span(real)] if real else []
    parts += [
        f"{_span(ids)} (simulated GPUs, scenario {scenario})" for scenario, ids in played.items()
    ]
    return Text(", ".join(parts))


def _span(ids: list[str]) -> str:
    return ", ".join(ids) if len(ids) <= 3 else f"{ids[0]}, {ids[1]} ... {ids[-1]}"


async def _tell_first_answer(system: System, console: Console, started: float) -> None:
    try:
        async with asyncio.timeout(NEXT_PING_AFTER_SECONDS):
            ping = await system.first_answer.ping()
    except TimeoutError:  # a restart, most often: nobody is due yet
        await _tell_next_ping(system, console)
        ping = await system.first_answer.ping()
    console.print(first_answer_line(ping, boottime() - started))


async def _tell_next_ping(system: System, console: Console) -> None:
    try:
        fleet = await system.fleet_client.fleet()
    except BusError:
        return
    if fleet.next_ping_at:
        line = Text(f"{fleet.agents} known agents, next ping ", "bright_black")
        console.print(line.append_text(terminal.moment(fleet.next_ping_at, terminal.now())))


def first_answer_line(ping: Ping, after_seconds: float) -> Text:
    """The sentence that a newcomer waits for."""
    up = sum(gpu.state == "up" for gpu in ping.gpus)
    line = Text("first answered ping ", "green").append(ping.agent_id, "bold")
    line.append(f" after {after_seconds:.1f} s: {up} of {len(ping.gpus)} GPUs up")
    if ping.response_ms is not None:
        line.append(f", answered in {ping.response_ms:.1f} ms")
    return line


async def _print_dashboard(system: System, console: Console, interval: float) -> None:
    source = BusSource(system.fleet_client)
    while True:
        try:
            console.print(screen(await source.dashboard()))
        except BusError as error:
            console.print(f"no dashboard now: {error}", style="yellow")
        await asyncio.sleep(interval)
