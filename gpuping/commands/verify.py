"""`gpuping verify FILE`: checks recorded reports and statements offline, with only public keys."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.table import Table

from bus import runner
from bus.errors import GpupingError, SettingsError
from bus.identity import local
from bus.identity.local import LocalIdentities
from gpuping import extras
from gpuping.commands.command_settings import load_settings
from gpuping.commands.options import CHECK, DataDir, Json, app, examples
from gpuping.output import terminal
from gpuping.output.files import waiting
from gpuping.verification import files as recorded_files
from gpuping.verification.records import Finding, InputError, Trusted
from gpuping.verification.verifier import Verifier

MOST_SHOWN = 200


@app.command(
    group=CHECK,
    help_epilogue=examples(
        "gpuping report agent-001 --month 2026-10 --output agent-001.bundle",
        "gpuping verify agent-001.bundle --fleet AAB... --key agent-001=UAB...",
        "gpuping history agent-001 --evidence --json > reports.json && gpuping verify reports.json",
        "gpuping export history agent-001 --hours 720 --output october.parquet",
        "gpuping verify october.parquet",
        "gpuping verify archive/day=2026-11-25 archive/day=2026-11-26",
    ),
)
def verify(
    *paths: Annotated[Path, Parameter(name="FILE")],
    fleet: Annotated[
        str | None, Parameter(help="the fleet's public key; without it that of the data dir")
    ] = None,
    key: Annotated[
        tuple[str, ...], Parameter(help="ID=KEY: the key that an agent must have signed with")
    ] = (),
    data_dir: DataDir = None,
    as_json: Json = False,
) -> int:
    """Verify signed reports and what was accounted for them, without a bus and without a secret.

    Each signature; that no report is missing, was added or put elsewhere; that the ledger of the
    host went on; that windows do not overlap; that what was accounted for is what was reported; and
    every sum of a statement. FILE is a statement bundle, a Parquet export of history, a day of the
    archive or the archive itself, or a page of history as JSON; several go in the order of time. It
    prints which key signed for each agent: compare it with the one that you know. Exit code 1 where
    something is wrong.
    """
    settings = load_settings(default_log_level="warning", GPUPING_DATA_DIR=data_dir)
    if not paths:
        raise SettingsError("FILE: expected at least one")
    if fleet is None and local.exist(settings.data_dir):
        fleet = LocalIdentities.open(settings.data_dir).authority.fleet.account
    verifier = Verifier(Trusted(fleet, _keys(key)))
    with waiting("verifying"), extras.needed("server"):
        _verify(verifier, paths)
    if as_json:
        terminal.console().print_json(json.dumps(_as_json(verifier)))
    else:
        _show(verifier, fleet)
    is_nothing_signed = not any(summary.signed for summary in verifier.summaries)
    if verifier.faults or is_nothing_signed:
        return runner.FAILED
    return runner.DONE


def _verify(verifier: Verifier, paths: tuple[Path, ...]) -> None:
    try:
        for path in paths:
            for content in recorded_files.read(path):
                if content.statement is None:
                    verifier.add_all(content.outcomes)
                else:
                    verifier.add_statement(content.statement, list(content.outcomes))
        verifier.end()
    except InputError as error:
        raise GpupingError(_printable(str(error))) from None


def _show(verifier: Verifier, fleet: str | None) -> None:
    console = terminal.console()
    table = Table("agent", "pings", "signed", "not signed", "signed with")
    for summary in verifier.summaries[:MOST_SHOWN]:
        table.add_row(
            _printable(summary.agent_id),
            f"{summary.first_seq} to {summary.last_seq}",
            str(summary.signed),
            str(summary.unsigned),
            "\n".join(summary.keys),
        )
    console.print(table)
    for finding in verifier.findings[:MOST_SHOWN]:
        console.print(shown(finding), style="red" if finding.is_fault else "yellow")
    if len(verifier.findings) > MOST_SHOWN:
        console.print(f"and {len(verifier.findings) - MOST_SHOWN} more: --json has all of them")
    if fleet is None:
        console.print("reports of any fleet were taken: give --fleet to name yours", style="yellow")
    signed = sum(summary.signed for summary in verifier.summaries)
    if verifier.faults:
        console.print(f"{len(verifier.faults)} problems", style="red")
    elif not signed:
        console.print("no report in it is signed: nothing is proven", style="red")
    else:
        rows = sum(summary.outcomes for summary in verifier.summaries)
        text = f"every signature, chain and sum is right: {signed} reports, {rows} outcomes"
        if verifier.statements:
            text += f", {verifier.statements} statement"
            if verifier.statements > 1:
                text += "s"
        console.print(text, style="green")


def shown(finding: Finding) -> str:
    """The line that says what was found and where."""
    where = finding.agent_id
    if finding.ping_seq is not None:
        where += f", ping {finding.ping_seq}"
    if finding.at_us is not None:
        at = datetime.fromtimestamp(finding.at_us / 1e6, UTC)
        where += f" at {at:%Y-%m-%dT%H:%M:%SZ}"
    return _printable(f"{where}: {finding.text}")


def _printable(text: str) -> str:
    """What may be shown on a terminal: a file from elsewhere may have control characters in it."""
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )


def _as_json(verifier: Verifier) -> dict[str, object]:
    return {
        "agents": [summary._asdict() for summary in verifier.summaries],
        "findings": [finding._asdict() for finding in verifier.findings],
        "problems": len(verifier.faults),
    }


def _keys(texts: tuple[str, ...]) -> dict[str, str]:
    keys = {}
    for text in texts:
        agent_id, separator, public_key = text.partition("=")
        if not separator:
            raise SettingsError(f"--key={text!r}: expected ID=KEY")
        keys[agent_id] = public_key
    return keys
