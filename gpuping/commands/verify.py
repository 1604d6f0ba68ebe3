"""`gpuping verify FILE`: checks recorded reports offline, with nothing but public keys."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter
from rich.table import Table

from bus import runner
from bus.contract.messages import decode
from bus.contract.questions import HistoryReply
from bus.errors import BadMessageError, GpupingError, SettingsError
from bus.identity import local
from bus.identity.local import LocalIdentities
from bus.identity.verification import RecordedReport, Trusted, Verification
from gpuping import extras
from gpuping.commands.command_settings import load_settings
from gpuping.commands.options import CHECK, DataDir, app, examples
from gpuping.output import terminal


@app.command(
    group=CHECK,
    help_epilogue=examples(
        "gpuping history agent-001 --evidence --json > reports.json && gpuping verify reports.json",
        "gpuping verify archive/day=2026-11-26/evidence.parquet --fleet AAB...",
        "gpuping verify reports.json --key agent-001=UAB...",
    ),
)
def verify(
    *files: Path,
    fleet: Annotated[
        str | None, Parameter(help="the fleet's public key; without it that of the data dir")
    ] = None,
    key: Annotated[
        tuple[str, ...], Parameter(help="ID=KEY: the key that an agent must have signed with")
    ] = (),
    data_dir: DataDir = None,
) -> int:
    """Verify signed reports: each signature, that none is missing or was added, and their sums.

    It needs no bus and no secret. FILE is the JSON of `gpuping history ID --evidence --json`, or
    the Parquet file `evidence` of a day of the archive; several days go in their order. It prints
    which key signed for each agent: compare it with the one that you know. Exit code 1 where
    something is wrong.
    """
    settings = load_settings(default_log_level="warning", GPUPING_DATA_DIR=data_dir)
    if not files:
        raise SettingsError("FILE: expected at least one")
    if fleet is None and local.exist(settings.data_dir):
        fleet = LocalIdentities.open(settings.data_dir).authority.fleet.account
    verification = Verification(Trusted(fleet, _keys(key)))
    for path in files:
        verification.add_all(_reports(path))
    console = terminal.console()
    table = Table("agent", "signed reports", "pings", "signed with")
    for summary in verification.summaries:
        pings = f"{summary.first_seq} to {summary.last_seq}"
        table.add_row(summary.agent_id, str(summary.reports), pings, "\n".join(summary.keys))
    console.print(table)
    for problem in verification.problems:
        console.print(f"{problem.agent_id}, ping {problem.ping_seq}: {problem.text}", style="red")
    if verification.problems or not verification.summaries:
        console.print(f"{len(verification.problems)} problems", style="red")
        return runner.FAILED
    console.print("every signature, chain and sum is right", style="green")
    return runner.DONE


def _keys(texts: tuple[str, ...]) -> dict[str, str]:
    keys = {}
    for text in texts:
        agent_id, separator, public_key = text.partition("=")
        if not separator:
            raise SettingsError(f"--key={text!r}: expected ID=KEY")
        keys[agent_id] = public_key
    return keys


def _reports(path: Path) -> Iterator[RecordedReport]:
    """The reports of a file, oldest first. Raises GpupingError for a file that has none."""
    if path.suffix == ".parquet":
        yield from _from_parquet(path)
        return
    try:
        reply = decode(path.read_bytes(), HistoryReply)
    except OSError as error:
        raise GpupingError(f"{path}: {error.strerror}") from None
    except BadMessageError as error:
        raise GpupingError(
            f"{path}: not the JSON of `gpuping history ID --evidence --json`: {error}"
        ) from None
    for ping in sorted(reply.pings, key=lambda ping: ping.ping_seq):
        kept = ping.evidence
        if kept is not None:
            yield RecordedReport(ping.ping_seq, kept.signature or "", kept.report.encode())


class _Row(msgspec.Struct, frozen=True, array_like=True):
    ping_seq: int
    signature: str
    payload: str


def _from_parquet(path: Path) -> Iterator[RecordedReport]:
    with extras.needed("server"):
        import duckdb
    query = "SELECT ping_seq, signature, payload FROM read_parquet(?) ORDER BY agent, ping_seq"
    try:
        with duckdb.connect() as connection:
            rows = connection.execute(query, [str(path)]).fetchall()
    except duckdb.Error as error:
        first_line = str(error).splitlines()[0]
        raise GpupingError(f"{path}: not a file of evidence: {first_line}") from None
    for row in msgspec.convert(rows, list[_Row]):
        yield RecordedReport(row.ping_seq, row.signature, row.payload.encode())
