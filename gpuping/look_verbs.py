"""The verbs that look at a running system: they change nothing anywhere."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter, validators
from rich.console import Console

from bus import clock
from bus.messages import Status
from bus.settings import Settings
from gpuping import lifecycle, terminal
from gpuping.lifecycle import Lifecycle
from gpuping.options import LOOK, AgentId, DataDir, Json, ServerUrl, app, examples
from gpuping.run_verbs import load
from gpuping.sources import Source, opened

Hours = Annotated[float, Parameter(validator=validators.Number(gt=0, lte=87_600), help="how far back")]
Month = Annotated[str | None, Parameter(help="such as 2026-11; without it, this month so far")]


@app.command(
    group=LOOK,
    help_epilogue=examples("gpuping top", "gpuping top --server-url http://localhost:8000", "gpuping top --json"),
)
def top(
    *,
    server_url: ServerUrl = None,
    data_dir: DataDir = None,
    interval: Annotated[float, Parameter(validator=validators.Number(gte=0.1), help="seconds between updates")] = 2.0,
    as_json: Json = False,
) -> int:
    """Watch the fleet live: status, uptime, the next pings, the newest outcomes."""
    from gpuping.top import live, screen

    async def show(source: Source, life: Lifecycle, console: Console) -> None:
        if as_json:
            _print_json(await source.dashboard())
        elif console.is_terminal:
            await live(source, life, console, interval)
        else:
            console.print(screen(await source.dashboard()))

    return _ask(show, data_dir, server_url)


@app.command(group=LOOK, help_epilogue=examples("gpuping ping agent-001", "gpuping ping agent-001 --json"))
def ping(agent_id: AgentId, /, *, server_url: ServerUrl = None, data_dir: DataDir = None, as_json: Json = False) -> int:
    """Ask an agent for its uptime since its last ping. A look: it counts nowhere."""

    async def show(source: Source, _: Lifecycle, console: Console) -> None:
        report = await source.look(agent_id)
        if as_json:
            _print_json(report)
            return
        console.print(terminal.report_headline(report))
        console.print(terminal.report_table(report))

    return _ask(show, data_dir, server_url)


@app.command(group=LOOK, help_epilogue=examples("gpuping agents", "gpuping agents --status missing --json"))
def agents(
    *,
    status: Annotated[Status | None, Parameter(help="only these")] = None,
    capability: Annotated[str | None, Parameter(help="only those that have it")] = None,
    server_url: ServerUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> int:
    """List the registered agents."""

    async def show(source: Source, _: Lifecycle, console: Console) -> None:
        page = await source.agents(status, capability)
        if as_json:
            _print_json(page)
        elif page.agents:
            console.print(terminal.agents_table(page.agents, clock.utc_now()))
        else:
            console.print("no agents: `gpuping agentd` on a GPU host registers itself")

    return _ask(show, data_dir, server_url)


@app.command(
    group=LOOK,
    help_epilogue=examples("gpuping history agent-001 --hours 24", "gpuping history agent-001 --hours 720 --json"),
)
def history(
    agent_id: AgentId,
    /,
    *,
    hours: Hours = 24.0,
    limit: Annotated[int, Parameter(validator=validators.Number(gte=1, lte=1000), help="the newest so many")] = 100,
    server_url: ServerUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> int:
    """Show an agent's pings, newest first, and what they come to."""

    async def show(source: Source, _: Lifecycle, console: Console) -> None:
        reply = await source.history(agent_id, hours, limit)
        if as_json:
            _print_json(reply)
            return
        console.print(terminal.pings_table(reply.pings, clock.utc_now()))
        console.print(terminal.summary_line(reply.summary))

    return _ask(show, data_dir, server_url)


@app.command(
    group=LOOK,
    help_epilogue=examples(
        "gpuping report agent-001 --month 2026-11",
        "gpuping report agent-001 --month 2026-11 --policy livepeer",
        "gpuping report agent-001 --threshold 98 --json",
    ),
)
def report(
    agent_id: AgentId,
    /,
    *,
    month: Month = None,
    threshold: Annotated[float | None, Parameter(help="also under this threshold, in percent")] = None,
    policy: Annotated[
        str | None, Parameter(help="also under these rules of payment: livepeer, runpod, or a file")
    ] = None,
    server_url: ServerUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> int:
    """Show an agent's uptime statement of a month: what somebody is paid on."""
    from gpuping import statements

    request = statements.request(month or f"{clock.utc_now():%Y-%m}", threshold, policy)

    async def show(source: Source, _: Lifecycle, console: Console) -> None:
        statement = await source.report(agent_id, request)
        if as_json:
            _print_json(statement)
        else:
            console.print(statements.shown(statement))

    return _ask(show, data_dir, server_url)


Show = Callable[[Source, Lifecycle, Console], Awaitable[None]]


def _ask(show: Show, data_dir: Any, server_url: str | None) -> int:
    """Opens the source that the options name, shows, and returns the exit code."""
    loaded: Settings = load(level="error", GPUPING_DATA_DIR=data_dir)

    async def main(life: Lifecycle) -> None:
        async with opened(loaded, server_url) as source:
            await show(source, life, terminal.console())

    return lifecycle.run(main)


def _print_json(answer: Any) -> None:
    print(msgspec.json.format(msgspec.json.encode(answer)).decode())
