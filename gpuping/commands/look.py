"""The verbs that look at a running system: they change nothing anywhere."""

from typing import Annotated

from cyclopts import Parameter, validators
from rich.console import Console

from bus import clock
from bus.contract.messages import Status
from bus.runner import Lifecycle
from gpuping.client.sources import Source
from gpuping.commands.ask import ask
from gpuping.commands.options import LOOK, AgentId, DataDir, Json, ServerUrl, app, examples
from gpuping.output import terminal
from gpuping.output.json_text import print_json

Hours = Annotated[
    float, Parameter(validator=validators.Number(gt=0, lte=87_600), help="how far back")
]


@app.command(
    group=LOOK,
    help_epilogue=examples(
        "gpuping top", "gpuping top --server-url http://localhost:8000", "gpuping top --json"
    ),
)
def top(
    *,
    server_url: ServerUrl = None,
    data_dir: DataDir = None,
    interval: Annotated[
        float, Parameter(validator=validators.Number(gte=0.1), help="seconds between updates")
    ] = 2.0,
    as_json: Json = False,
) -> int:
    """Watch the fleet live: status, uptime, the next pings, the newest outcomes."""
    from gpuping.output.top import live, screen

    async def show(source: Source, life: Lifecycle, console: Console) -> None:
        if as_json:
            print_json(await source.dashboard())
        elif console.is_terminal:
            await live(source, life, console, interval)
        else:
            console.print(screen(await source.dashboard()))

    return ask(show, data_dir, server_url)


@app.command(
    group=LOOK, help_epilogue=examples("gpuping ping agent-001", "gpuping ping agent-001 --json")
)
def ping(
    agent_id: AgentId,
    /,
    *,
    server_url: ServerUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> int:
    """Ask an agent for its uptime since its last ping. A look: it counts nowhere."""

    async def show(source: Source, _: Lifecycle, console: Console) -> None:
        report = await source.look(agent_id)
        if as_json:
            print_json(report)
            return
        console.print(terminal.report_headline(report))
        console.print(terminal.report_table(report))

    return ask(show, data_dir, server_url)


@app.command(
    group=LOOK, help_epilogue=examples("gpuping agents", "gpuping agents --status missing --json")
)
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
            print_json(page)
        elif page.agents:
            console.print(terminal.agents_table(page.agents, clock.utc_now()))
        else:
            console.print("no agents: `gpuping agentd` on a GPU host registers itself")

    return ask(show, data_dir, server_url)


@app.command(
    group=LOOK,
    help_epilogue=examples(
        "gpuping history agent-001 --hours 24", "gpuping history agent-001 --hours 720 --json"
    ),
)
def history(
    agent_id: AgentId,
    /,
    *,
    hours: Hours = 24.0,
    limit: Annotated[
        int, Parameter(validator=validators.Number(gte=1, lte=1000), help="the newest so many")
    ] = 100,
    server_url: ServerUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> int:
    """Show an agent's pings, newest first, and what they come to."""

    async def show(source: Source, _: Lifecycle, console: Console) -> None:
        reply = await source.history(agent_id, hours, limit)
        if as_json:
            print_json(reply)
            return
        console.print(terminal.pings_table(reply.pings, clock.utc_now()))
        console.print(terminal.summary_line(reply.summary))

    return ask(show, data_dir, server_url)
