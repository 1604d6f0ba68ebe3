"""`gpuping report` and `gpuping replay`: an agent's month, and the fleet's under other rules."""

from typing import Annotated, Literal

from cyclopts import Parameter, validators
from msgspec.structs import replace
from rich.console import Console

from bus.contract.exports import FileFormat
from bus.contract.statements import READY_MADE, StatementFormat
from bus.errors import SettingsError
from bus.runner import Lifecycle
from gpuping.client.sources import Source
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
    bullets,
    examples,
)
from gpuping.commands.query import run_query
from gpuping.commands.statement_requests import replay_request, statement_request
from gpuping.output import files, statements

AGENTS_IN_TABLE = 40
AGENTS_IN_JSON = 1000
_POLICIES = f"Ready-made policies:\n\n{bullets(READY_MADE)}\n\n"

ReportFormat = Annotated[
    Literal["table", "json", "csv", "parquet", "html", "bundle"] | None,
    Parameter(name="--format", help="[default: table]"),
]
ReplayFormat = Annotated[
    Literal["table", "json", "csv", "parquet"] | None,
    Parameter(name="--format", help="[default: table]"),
]
Limit = Annotated[
    int | None,
    Parameter(
        validator=validators.Number(gte=1, lte=1000), help="agents in table [40] and json [1000]"
    ),
]


@app.command(
    group=LOOK,
    help_epilogue=_POLICIES
    + examples(
        "gpuping report agent-001 --month 2026-11",
        "gpuping report agent-001 --month 2026-11 --policy livepeer",
        "gpuping report agent-001 --month 2026-11 --output agent-001.html",
        "gpuping report agent-001 --format csv > agent-001.csv",
        "gpuping report agent-001 --month 2026-10 --output agent-001.bundle",
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
    form: ReportFormat = None,
    output: Output = None,
    server_url: ServerUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> int:
    """Show an agent's uptime statement of a month, on which its host is paid.

    With --threshold or --policy it also shows what other rules would pay. A bundle has the signed
    reports as well, and is for `gpuping verify`.
    """
    to = files.choose_target(form, output, json=as_json)
    request = statement_request(month, threshold, policy)

    async def show(
        source: Source,
        _: Lifecycle,
        __: Console,
    ) -> None:
        if to.format in {"table", "json"}:
            with files.waiting("storage computes the statement"):
                statement = await source.report(agent_id, request)
            files.write_answer(statement, statements.statement_table(statement), to)
            return
        wanted: StatementFormat = to.format  # type: ignore[assignment]  # one of the others
        download = source.report_file(agent_id, replace(request, format=wanted))
        await files.save_download(download, to.output)

    return run_query(show, data_dir, server_url)


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
    limit: Limit = None,
    form: ReplayFormat = None,
    output: Output = None,
    server_url: ServerUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> int:
    """Show the fleet's month under other rules: who gains and who loses, the greatest change first.

    CSV and Parquet hold every agent. What is paid is a share of the full rate over the time that
    reports cover.
    """
    to = files.choose_target(form, output, json=as_json)
    if to.format in {"html", "bundle"}:
        raise SettingsError(f"--output={str(output)!r}: expected .json, .csv or .parquet")
    request = replay_request(month, threshold, policy)

    async def show(
        source: Source,
        _: Lifecycle,
        __: Console,
    ) -> None:
        if to.format in {"table", "json"}:
            most_agents = limit or _default_limit(to.format)
            with files.waiting("storage replays the month"):
                replayed = await source.replay(replace(request, limit=most_agents))
            files.write_answer(replayed, statements.replay_table(replayed), to)
            return
        wanted: FileFormat = to.format  # type: ignore[assignment]  # one of the others
        download = source.replay_file(replace(request, format=wanted))
        await files.save_download(download, to.output)

    return run_query(show, data_dir, server_url)


def _default_limit(form: str) -> int:
    if form == "json":
        return AGENTS_IN_JSON
    return AGENTS_IN_TABLE
