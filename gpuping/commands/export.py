"""`gpuping export`: any answer about the past as a table, in CSV or Parquet."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from cyclopts import Parameter, validators
from msgspec.structs import replace
from rich.console import Console

from bus.contract.exports import TABLES, By, FileFormat, TableRequest
from bus.errors import SettingsError
from bus.runner import Lifecycle
from gpuping.client.download import Download
from gpuping.client.sources import Source
from gpuping.commands.ask import ask
from gpuping.commands.options import (
    LOOK,
    DataDir,
    OneAgent,
    Output,
    Policy,
    ServerUrl,
    Threshold,
    app,
    examples,
)
from gpuping.output import files, statements

Fetch = Callable[[Source], Awaitable[Download]]
Name = Literal[
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
_DIVIDED = {"fleet", "response-times", "lateness"}
_ABOUT = TABLES | {
    "statement": "an agent's month, one row the host and one each GPU: what `gpuping report` shows",
    "replay": "one row an agent, its pay under other rules: what `gpuping replay` shows",
}
_HELP = (
    "Tables:\n\n"
    + "\n".join(f"- **{name}**: {row}" for name, row in _ABOUT.items())
    + "\n\nIn CSV, text that a spreadsheet would take for a formula has an apostrophe in front; "
    "Parquet holds it as it is.\n\n"
)


class Asked(NamedTuple):
    """The verb's options."""

    table: Name
    agent_id: str | None
    hours: float | None
    month: str | None
    by: By | None
    threshold: float | None
    policy: str | None

    def refuse(self, *names: str) -> None:
        """Raises SettingsError for an option that means nothing here: nobody shall think that it counted."""
        for name in names:
            if getattr(self, name) is not None:
                option = "ID" if name == "agent_id" else f"--{name}"
                raise SettingsError(
                    f"{option}={getattr(self, name)!r}: expected nothing, {self.table} has no use for it"
                )


@app.command(
    group=LOOK,
    help_epilogue=_HELP
    + examples(
        "gpuping export history agent-001 --hours 720 --output agent-001.parquet",
        "gpuping export agents --month 2026-11 > november.csv",
        "gpuping export response-times --by hour --hours 168",
        "gpuping export incidents --month 2026-11 --output incidents.csv",
        "gpuping export statement agent-001 --month 2026-11 --output agent-001.parquet",
        "gpuping export replay --month 2026-11 --policy livepeer --output replay.csv",
    ),
)
def export(  # noqa: PLR0913  # options of a command line
    table: Annotated[Name, Parameter(name="TABLE", help="which: see below")],
    agent_id: OneAgent = None,
    /,
    *,
    hours: Annotated[
        float | None,
        Parameter(validator=validators.Number(gt=0, lte=87_600), help="how far back [default: 24]"),
    ] = None,
    month: Annotated[str | None, Parameter(help="such as 2026-11, instead of --hours")] = None,
    by: Annotated[
        By | None,
        Parameter(help="what a row of fleet, response-times or lateness is of [default: period]"),
    ] = None,
    threshold: Threshold = None,
    policy: Policy = None,
    form: Annotated[FileFormat | None, Parameter(name="--format", help="[default: csv]")] = None,
    output: Output = None,
    server_url: ServerUrl = None,
    data_dir: DataDir = None,
) -> int:
    """Take any answer about the past away as a table, in CSV or Parquet: all of it, however long it is."""
    to = files.target(form, output, default="csv")
    if to.form not in {"csv", "parquet"}:
        raise SettingsError(
            f"--output={str(output)!r}: expected a name that ends in .csv or .parquet, or --format"
        )
    fetch = fetching(Asked(table, agent_id, hours, month, by, threshold, policy), to.form)  # type: ignore[arg-type]  # see above

    async def show(source: Source, _life: Lifecycle, _console: Console) -> None:
        await files.save(fetch(source), to.output)

    return ask(show, data_dir, server_url)


def fetching(asked: Asked, form: FileFormat) -> Fetch:
    """What to ask a source for. Raises SettingsError for what cannot be meant, before anything is asked."""
    if asked.table == "replay":
        asked.refuse("agent_id", "hours", "by")
        question = statements.replay_request(asked.month, asked.threshold, asked.policy)
        return lambda source: source.replay_file(replace(question, format=form))
    if asked.table == "statement":
        asked.refuse("hours", "by")
        if asked.agent_id is None:
            raise SettingsError("ID: expected an agent's id, a statement is of one agent")
        agent_id, month = (
            asked.agent_id,
            statements.request(asked.month, asked.threshold, asked.policy),
        )
        return lambda source: source.report_file(agent_id, replace(month, format=form))
    asked.refuse("threshold", "policy", *([] if asked.table in _DIVIDED else ["by"]))
    if asked.table == "fleet":
        asked.refuse("agent_id")
    if asked.hours is not None and asked.month is not None:
        raise SettingsError(
            f"--hours={asked.hours:g}: expected this or --month={asked.month}, not both"
        )
    request = _request(asked, form)
    return lambda source: source.table(request)


def _request(asked: Asked, form: FileFormat) -> TableRequest:
    options: dict[str, Any] = {
        name: getattr(asked, name) for name in ("agent_id", "hours", "month", "by")
    }
    given = {name: value for name, value in options.items() if value is not None}
    try:
        return msgspec.convert({"table": asked.table, "format": form} | given, TableRequest)
    except msgspec.ValidationError:  # all else was checked as an option
        raise statements.no_month(asked.month) from None
