"""`gpuping audit`: who registered, pinged, removed and changed."""

from typing import Annotated

from cyclopts import Parameter, validators
from rich.console import Console

from bus import clock
from bus.contract.audit import AuditPage
from gpuping.commands.options import CHECK, DataDir, Json, ServerUrl, app, examples
from gpuping.commands.query import run_answer
from gpuping.output import tables

Limit = Annotated[
    int,
    Parameter(validator=validators.Number(gte=1, lte=1000), help="the newest so many"),
]
Cursor = Annotated[
    int | None,
    Parameter(validator=validators.Number(gte=1), help="only entries before this sequence number"),
]


@app.command(
    group=CHECK,
    help_epilogue=examples(
        "gpuping audit",
        "gpuping audit --limit 1000 --json",
        "GPUPING_TOKEN=... gpuping audit --server-url https://gpuping.example",
    ),
)
def audit(
    *,
    limit: Limit = 100,
    before: Cursor = None,
    server_url: ServerUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> int:
    """Show the audit log: who registered, pinged by hand, removed and changed, newest first."""

    def show(console: Console, page: AuditPage) -> None:
        if page.entries:
            console.print(tables.audit_table(page.entries, clock.utc_now()))
        if page.dropped:
            console.print(
                f"the log begins after entry {page.dropped}: what came before was dropped, "
                "because it was too old or the log was full"
            )
        elif not page.entries:
            console.print("nobody has changed anything yet")

    return run_answer(
        lambda source: source.audit(limit, before), show, data_dir, server_url, as_json=as_json
    )
