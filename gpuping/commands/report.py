"""The verbs that give an account of a month: one agent's statement, and the fleet's under other rules."""

from typing import Annotated, Literal

from cyclopts import Parameter, validators
from msgspec.structs import replace
from rich.console import Console

from bus.contract.exports import FileFormat
from bus.contract.statements import READY_MADE, StatementFormat
from bus.runner import Lifecycle
from gpuping.client.sources import Source
from gpuping.commands.ask import ask
from gpuping.commands.options import (
    LOOK,
    AgentId,
    DataDir,
    Json,
    Month,
    Output,
    Policy,
    ServerUrl,
    Threshold,
    app,
    examples,
)
from gpuping.output import files, statements

SHOWN_AGENTS = 40  # of a replay, in the terminal
_POLICIES = (
    "Ready-made policies:\n\n"
    + "\n".join(f"- **{name}**: {rule}" for name, rule in READY_MADE.items())
    + "\n\n"
)


@app.command(
    group=LOOK,
    help_epilogue=_POLICIES
    + examples(
        "gpuping report agent-001 --month 2026-11",
        "gpuping report agent-001 --month 2026-11 --policy livepeer",
        "gpuping report agent-001 --month 2026-11 --output agent-001.html",
        "gpuping report agent-001 --format csv > agent-001.csv",
        "gpuping report agent-001 --threshold 98 --json",
    ),
)
def report(  # noqa: PLR0913  # options of a command line
    agent_id: AgentId,
    /,
    *,
    month: Month = None,
    threshold: Threshold = None,
    policy: Policy = None,
    form: Annotated[
        Literal["table", "json", "csv", "parquet", "html"] | None,
        Parameter(name="--format", help="[default: table]"),
    ] = None,
    output: Output = None,
    server_url: ServerUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> int:
    """Show an agent's uptime statement of a month: what somebody is paid on.

    With --threshold or --policy it is shown under other rules besides.
    """
    to = files.target(form, output, json=as_json)
    request = statements.request(month, threshold, policy)

    async def show(source: Source, _: Lifecycle, __: Console) -> None:
        if to.form in {"table", "json"}:
            statement = await source.report(agent_id, request)
            files.show(statement, statements.shown(statement), to)
            return
        wanted: StatementFormat = to.form  # type: ignore[assignment]  # the others are above
        await files.save(source.report_file(agent_id, replace(request, format=wanted)), to.output)

    return ask(show, data_dir, server_url)


@app.command(
    group=LOOK,
    help_epilogue=_POLICIES
    + examples(
        "gpuping replay --month 2026-11 --threshold 98",
        "gpuping replay --month 2026-11 --policy livepeer",
        "gpuping replay --month 2026-11 --policy own-rules.toml --output november.csv",
    ),
)
def replay(  # noqa: PLR0913  # options of a command line
    *,
    month: Month = None,
    threshold: Threshold = None,
    policy: Policy = None,
    limit: Annotated[
        int | None,
        Parameter(
            validator=validators.Number(gte=1, lte=1000),
            help="agents in table [40] and json [1000]",
        ),
    ] = None,
    form: Annotated[
        Literal["table", "json", "csv", "parquet"] | None,
        Parameter(name="--format", help="[default: table]"),
    ] = None,
    output: Output = None,
    server_url: ServerUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> int:
    """Show the fleet's month under other rules: who gains and who loses, the greatest change first.

    CSV and Parquet hold every agent. What is paid is a share of the full rate over the time that reports cover.
    """
    to = files.target(form, output, json=as_json)
    request = statements.replay_request(month, threshold, policy)

    async def show(source: Source, _: Lifecycle, __: Console) -> None:
        if to.form in {"table", "json"}:
            listed = limit or (1000 if to.form == "json" else SHOWN_AGENTS)
            with files.waiting("storage replays the month"):
                replayed = await source.replay(replace(request, limit=listed))
            files.show(replayed, statements.replayed(replayed), to)
            return
        wanted: FileFormat = to.form  # type: ignore[assignment]  # the others are above
        await files.save(source.replay_file(replace(request, format=wanted)), to.output)

    return ask(show, data_dir, server_url)
