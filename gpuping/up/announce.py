"""What `gpuping up` prints: addresses, agents, the first answered ping, the dashboard."""

import asyncio
import os

from rich.console import Console, Group
from rich.text import Text

from bus.clock import boottime, utc_now
from bus.contract.questions import Ping
from bus.errors import BusError
from bus.runner import Lifecycle
from gpuping.client.bus_source import BusSource
from gpuping.client.process_times import start_ticks
from gpuping.output import formats
from gpuping.output.dashboard_screen import dashboard_screen
from gpuping.output.terminal import screen_width
from gpuping.up import demo
from gpuping.up.system import System

# After a restart no agent may be due for minutes. The next ping is then announced instead.
NEXT_PING_AFTER_SECONDS = 2.0
LISTED_AGENTS = 3


def process_started() -> float:
    """When this process was started, in seconds of CLOCK_BOOTTIME.

    Start-up times are counted from here, because the user waits for the imports as well.
    """
    ticks = start_ticks(os.getpid())
    assert ticks is not None  # noqa: S101  # this process is alive
    return ticks / os.sysconf("SC_CLK_TCK")


async def announce_until_stopped(
    system: System,
    lifecycle: Lifecycle,
    console: Console,
    *,
    started: float,
    dashboard_interval: float | None,
) -> None:
    """Prints until a signal stops the command. `started` is CLOCK_BOOTTIME in seconds."""
    console.print(banner(system))
    ready_seconds = boottime() - started
    ready = f"ready after {ready_seconds:.1f} s; Ctrl-C stops it, everything is kept"
    console.print(Text(ready, "bright_black"))
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_print_first_answer(system, console, started))]
        if dashboard_interval:
            dashboards = _print_dashboards(system, console, dashboard_interval)
            tasks.append(group.create_task(dashboards))
        await lifecycle.until_stopped()
        for task in tasks:
            task.cancel()
    console.print("stopping ...", style="bright_black")


def banner(system: System) -> Group:
    """Addresses, data dir and agents, one a line."""
    server = "a server that runs already"
    if system.has_own_server:
        server = "its own nats-server"
    bus = Text(system.settings.shown_nats_url)
    bus.append(f"  {server}", "bright_black")
    lines = [
        _banner_line("dashboard", Text(f"{system.gateway_url}/", "bold cyan")),
        _banner_line("bus", bus),
        _banner_line("data", Text(str(system.settings.data_dir))),
        _banner_line("agents", agents_line(system)),
    ]
    if system.room_remark is not None:
        lines.append(_banner_line("disk", Text(system.room_remark, "yellow")))
    return Group("", *lines, "")


def _banner_line(name: str, value: Text) -> Text:
    line = Text(f"  {name:<11}", "bright_black")
    return line.append_text(value)


def agents_line(system: System) -> Text:
    """Which agents run in this process, and which of them simulate their GPUs."""
    if not system.agents:
        return Text("none here")
    if system.is_demo:
        return demo.agents_line()
    with_real_gpus: list[str] = []
    by_scenario: dict[str, list[str]] = {}
    for agent in system.agents:
        if agent.scenario:
            by_scenario.setdefault(agent.scenario, []).append(agent.agent_id)
        else:
            with_real_gpus.append(agent.agent_id)
    parts = []
    if with_real_gpus:
        parts.append(_id_range(with_real_gpus))
    for scenario, agent_ids in by_scenario.items():
        parts.append(f"{_id_range(agent_ids)} (simulated GPUs, scenario {scenario})")
    return Text(", ".join(parts))


def _id_range(agent_ids: list[str]) -> str:
    if len(agent_ids) <= LISTED_AGENTS:
        return ", ".join(agent_ids)
    return f"{agent_ids[0]}, {agent_ids[1]} ... {agent_ids[-1]}"


async def _print_first_answer(
    system: System,
    console: Console,
    started: float,
) -> None:
    try:
        async with asyncio.timeout(NEXT_PING_AFTER_SECONDS):
            ping = await system.first_answer.ping()
    except TimeoutError:
        await _print_next_ping(system, console)
        ping = await system.first_answer.ping()
    console.print(first_answer_line(ping, boottime() - started))


async def _print_next_ping(system: System, console: Console) -> None:
    try:
        fleet = await system.fleet_client.fleet()
    except BusError:
        return
    if fleet.next_ping_at is None:
        return
    line = Text(f"{fleet.agents} known agents, next ping ", "bright_black")
    line.append_text(formats.relative_time(fleet.next_ping_at, utc_now()))
    console.print(line)


def first_answer_line(ping: Ping, after_seconds: float) -> Text:
    """Tells that the system works: which agent answered, and how many of its GPUs are up."""
    up = sum(gpu.state == "up" for gpu in ping.gpus)
    line = Text("first answered ping ", "green")
    line.append(ping.agent_id, "bold")
    line.append(f" after {after_seconds:.1f} s: {up} of {len(ping.gpus)} GPUs up")
    if ping.response_ms is not None:
        line.append(f", answered in {ping.response_ms:.1f} ms")
    return line


async def _print_dashboards(
    system: System,
    console: Console,
    interval: float,
) -> None:
    source = BusSource(system.fleet_client)
    while True:
        try:
            dashboard = await source.dashboard()
            console.print(dashboard_screen(dashboard, screen_width(console)))
        except BusError as error:
            console.print(f"no dashboard now: {error}", style="yellow")
        await asyncio.sleep(interval)
