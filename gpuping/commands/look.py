"""`gpuping top`, `ping`, `agents` and `history`. They show a system and change nothing."""

from typing import Annotated

from cyclopts import Parameter, validators
from rich.console import Console

from bus import clock
from bus.contract.messages import Status, UptimeReport
from bus.contract.questions import AgentPage, HistoryReply
from bus.runner import Lifecycle
from gpuping.client.sources import Source
from gpuping.commands.options import LOOK, AgentId, DataDir, Json, ServerUrl, app, examples
from gpuping.commands.query import run_answer, run_query
from gpuping.extras import needed
from gpuping.output import tables
from gpuping.output.agent_columns import agents_table
from gpuping.output.json_text import print_json
from gpuping.output.ping_columns import pings_table
from gpuping.output.terminal import screen_width

Interval = Annotated[
    float,
    Parameter(validator=validators.Number(gte=0.1), help="seconds between updates"),
]
OnlyStatus = Annotated[Status | None, Parameter(help="only these")]
OnlyCapability = Annotated[str | None, Parameter(help="only those that have it")]
Hours = Annotated[
    float,
    Parameter(validator=validators.Number(gt=0, lte=87_600), help="how far back"),
]
Limit = Annotated[
    int,
    Parameter(validator=validators.Number(gte=1, lte=1000), help="the newest so many"),
]


@app.command(
    group=LOOK,
    help_epilogue=examples(
        "gpuping top",
        "gpuping top --server-url http://localhost:8000",
        "gpuping top --once",
        "gpuping top --json",
    ),
)
def top(
    *,
    server_url: ServerUrl = None,
    data_dir: DataDir = None,
    interval: Interval = 2.0,
    once: Annotated[
        bool, Parameter(negative="", help="print the fleet and its newest pings once, and end")
    ] = False,
    as_json: Json = False,
) -> int:
    """Watch the fleet live: status, uptime, the next pings, and any agent in full.

    `/` searches, `s` sorts by the next column, `r` reverses, Enter shows an agent, `q` ends.
    """
    from gpuping.output.dashboard_screen import dashboard_screen

    async def show(
        source: Source,
        lifecycle: Lifecycle,
        console: Console,
    ) -> None:
        if console.is_terminal and not as_json and not once:
            with needed("top"):
                from gpuping.top.application import run_top
            await run_top(source, lifecycle, interval)
            return
        dashboard = await source.dashboard()
        if as_json:
            print_json(dashboard)
        else:
            console.print(dashboard_screen(dashboard, screen_width(console)))

    return run_query(show, data_dir, server_url)


@app.command(
    group=LOOK,
    help_epilogue=examples("gpuping ping agent-001", "gpuping ping agent-001 --json"),
)
def ping(
    agent_id: AgentId,
    /,
    *,
    server_url: ServerUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> int:
    """Ask an agent for its uptime since its last ping. This does not count as a ping."""

    def show(console: Console, report: UptimeReport) -> None:
        console.print(tables.report_headline(report))
        console.print(tables.report_table(report))

    return run_answer(
        lambda source: source.look(agent_id), show, data_dir, server_url, as_json=as_json
    )


@app.command(
    group=LOOK,
    help_epilogue=examples("gpuping agents", "gpuping agents --status missing --json"),
)
def agents(
    *,
    status: OnlyStatus = None,
    capability: OnlyCapability = None,
    server_url: ServerUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> int:
    """List the registered agents."""

    def show(console: Console, page: AgentPage) -> None:
        if page.agents:
            console.print(agents_table(page.agents, clock.utc_now(), console.width))
        else:
            console.print("no agents: `gpuping agentd` on a GPU host registers itself")

    return run_answer(
        lambda source: source.agents(status, capability),
        show,
        data_dir,
        server_url,
        as_json=as_json,
    )


@app.command(
    group=LOOK,
    help_epilogue=examples(
        "gpuping history agent-001 --hours 24",
        "gpuping history agent-001 --hours 720 --json",
        "gpuping history agent-001 --evidence",
    ),
)
def history(
    agent_id: AgentId,
    /,
    *,
    hours: Hours = 24.0,
    limit: Limit = 100,
    evidence: Annotated[
        bool, Parameter(negative="", help="with the reports that were signed or refused")
    ] = False,
    server_url: ServerUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> int:
    """Show an agent's pings, newest first, and their summary."""

    def show(console: Console, reply: HistoryReply) -> None:
        console.print(pings_table(reply.pings, clock.utc_now(), console.width))
        if evidence:
            for line in tables.evidence_lines(reply.pings):
                console.print(line)
        console.print(tables.summary_line(reply.summary))

    return run_answer(
        lambda source: source.history(agent_id, hours, limit, evidence=evidence),
        show,
        data_dir,
        server_url,
        as_json=as_json,
    )
