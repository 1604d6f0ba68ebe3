"""`gpuping export`: any answer about the past as a table, in CSV or Parquet."""

import re
from collections.abc import Awaitable, Callable
from typing import Annotated, Literal, NamedTuple

import msgspec
from cyclopts import Parameter, validators
from msgspec.structs import replace
from rich.console import Console

from bus.contract.exports import TABLES, By, FileFormat, TableRequest
from bus.contract.labels import LABEL_PATTERN
from bus.errors import SettingsError
from bus.runner import Lifecycle
from gpuping.client.download import Download
from gpuping.client.sources import Source
from gpuping.commands.options import (
    LOOK,
    DataDir,
    OneAgent,
    Output,
    Policy,
    ServerUrl,
    Threshold,
    app,
    bullets,
    examples,
)
from gpuping.commands.query import run_query
from gpuping.commands.statement_requests import invalid_month, replay_request, statement_request
from gpuping.output import files

Fetch = Callable[[Source], Awaitable[Download]]
TableName = Literal[
    "history",
    "incidents",
    "agents",
    "dashboard",
    "fleet",
    "response-times",
    "lateness",
    "statement",
    "replay",
]
TABLES_WITH_BY = {"fleet", "response-times", "lateness"}
_ROWS = TABLES | {
    "statement": "an agent's month, one row the host and one each GPU: what `gpuping report` shows",
    "replay": "one row an agent, its pay under other rules: what `gpuping replay` shows",
}
_HELP = (
    f"Tables:\n\n{bullets(_ROWS)}"
    "\n\nIn CSV, text that a spreadsheet would take for a formula has an apostrophe in front; "
    "Parquet holds it as it is.\n\n"
)

Table = Annotated[TableName, Parameter(name="TABLE", help="which: see below")]
Hours = Annotated[
    float | None,
    Parameter(validator=validators.Number(gt=0, lte=87_600), help="how far back [default: 24]"),
]
MonthInsteadOfHours = Annotated[
    str | None,
    Parameter(help="such as 2026-11, instead of --hours"),
]
RowOf = Annotated[
    By | None,
    Parameter(help="what a row of fleet, response-times or lateness is of [default: period]"),
]
ExportFormat = Annotated[FileFormat | None, Parameter(name="--format", help="[default: csv]")]


ForLabel = Annotated[
    str | None, Parameter(help="only agents that have this label, such as site=FRA")
]


class ExportOptions(NamedTuple):
    """The options that say what to export. None: not given."""

    table: TableName
    agent_id: str | None
    hours: float | None
    month: str | None
    by: By | None
    threshold: float | None
    policy: str | None
    label: str | None

    def refuse(self, *names: str) -> None:
        """Raises SettingsError for a given option that has no meaning for the table."""
        for name in names:
            value = getattr(self, name)
            if value is None:
                continue
            option = f"--{name}"
            if name == "agent_id":
                option = "ID"
            raise SettingsError(
                f"{option}={value!r}: expected nothing, {self.table} has no use for it"
            )


@app.command(
    group=LOOK,
    help_epilogue=_HELP
    + examples(
        "gpuping export history agent-001 --hours 720 --output agent-001.parquet",
        "gpuping export agents --month 2026-11 > november.csv",
        "gpuping export agents --label site=FRA --month 2026-11",
        "gpuping export response-times --by hour --hours 168",
        "gpuping export incidents --month 2026-11 --output incidents.csv",
        "gpuping export statement agent-001 --month 2026-11 --output agent-001.parquet",
        "gpuping export replay --month 2026-11 --policy livepeer --output replay.csv",
    ),
)
def export(  # noqa: PLR0913  # options of a command line
    table: Table,
    agent_id: OneAgent = None,
    /,
    *,
    hours: Hours = None,
    month: MonthInsteadOfHours = None,
    by: RowOf = None,
    threshold: Threshold = None,
    policy: Policy = None,
    label: ForLabel = None,
    form: ExportFormat = None,
    output: Output = None,
    server_url: ServerUrl = None,
    data_dir: DataDir = None,
) -> int:
    """Write any answer about the past as a table in CSV or Parquet, complete at any length."""
    to = files.choose_target(form, output, default="csv")
    if to.format not in {"csv", "parquet"}:
        raise SettingsError(
            f"--output={str(output)!r}: expected a name that ends in .csv or .parquet, or --format"
        )
    wanted: FileFormat = to.format  # type: ignore[assignment]  # one of the two
    options = ExportOptions(table, agent_id, hours, month, by, threshold, policy, label)
    fetch = fetching(options, wanted)

    async def show(
        source: Source,
        _: Lifecycle,
        __: Console,
    ) -> None:
        await files.save_download(fetch(source), to.output)

    return run_query(show, data_dir, server_url)


def fetching(options: ExportOptions, form: FileFormat) -> Fetch:
    """How to ask a source for the table.

    Raises SettingsError for options that contradict each other, before anything is asked.
    """
    if options.table == "replay":
        return _replay(options, form)
    if options.table == "statement":
        return _statement(options, form)
    options.refuse("threshold", "policy")
    if options.table not in TABLES_WITH_BY:
        options.refuse("by")
    if options.table == "fleet":
        options.refuse("agent_id", "label")
    _check_label(options)
    if options.hours is not None and options.month is not None:
        raise SettingsError(
            f"--hours={options.hours:g}: expected this or --month={options.month}, not both"
        )
    request = _table_request(options, form)
    return lambda source: source.table(request)


def _check_label(options: ExportOptions) -> None:
    """Raises SettingsError for what is no label, or beside an agent's id."""
    label = options.label
    if label is None:
        return
    if options.agent_id is not None:
        raise SettingsError(f"--label={label!r}: expected this or an agent's id, not both")
    if not re.fullmatch(LABEL_PATTERN, label):
        raise SettingsError(f"--label={label!r}: expected a name and a value, such as site=FRA")


def _replay(options: ExportOptions, form: FileFormat) -> Fetch:
    options.refuse("agent_id", "hours", "by", "label")
    request = replay_request(options.month, options.threshold, options.policy)
    request = replace(request, format=form)
    return lambda source: source.replay_file(request)


def _statement(options: ExportOptions, form: FileFormat) -> Fetch:
    options.refuse("hours", "by", "label")
    if options.agent_id is None:
        raise SettingsError("ID: expected an agent's id, a statement is of one agent")
    agent_id = options.agent_id
    request = statement_request(options.month, options.threshold, options.policy)
    request = replace(request, format=form)
    return lambda source: source.report_file(agent_id, request)


def _table_request(options: ExportOptions, form: FileFormat) -> TableRequest:
    """Options that were not given are left out, so that the request's own defaults hold."""
    fields = {"table": options.table, "format": form}
    for name in ("agent_id", "hours", "month", "by", "label"):
        value = getattr(options, name)
        if value is not None:
            fields[name] = value
    try:
        return msgspec.convert(fields, TableRequest)
    except msgspec.ValidationError:  # only the month has not been checked as an option
        raise invalid_month(options.month) from None
