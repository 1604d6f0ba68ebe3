"""The verbs that set up and check: `doctor` and `token`."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from cyclopts import Parameter

from bus import runner
from bus.runner import Lifecycle
from bus.settings import Settings
from gpuping.commands.options import CHECK, DataDir, Json, app, examples
from gpuping.commands.run import load
from gpuping.output import terminal
from gpuping.output.findings import Finding

Service = Literal["scheduler", "storage", "agentd"]
Role = Literal["viewer", "operator", "admin"]


@app.command(
    group=CHECK,
    help_epilogue=examples("gpuping doctor", "NATS_URL=nats://bus.example gpuping doctor --json"),
)
def doctor(
    *,
    answers: Annotated[
        Service | None, Parameter(help="only whether this service answers, for health checks")
    ] = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> int:
    """Check this machine and the bus, and say what to do. Exit code 1 where something does not work."""
    loaded = load(level="error", GPUPING_DATA_DIR=data_dir)
    findings: list[Finding] = []

    async def main(_: Lifecycle) -> None:
        findings.extend(await _findings(loaded, answers))

    if code := runner.run(main):
        return code
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(findings)).decode())
    else:
        terminal.console().print(terminal.findings_table(findings))
    return runner.FAILED if any(finding.level == "failure" for finding in findings) else runner.DONE


async def _findings(loaded: Settings, answers: str | None) -> list[Finding]:
    from gpuping.doctor import examine as checks

    return await (checks.answers(loaded, answers) if answers else checks.examine(loaded))


@app.command(
    group=CHECK,
    help_epilogue=examples("gpuping token alice --role operator --file deploy/tokens.toml"),
)
def token(
    name: Annotated[str, Parameter(help="who holds it; shown in the gateway's log")],
    /,
    *,
    role: Annotated[Role, Parameter(help="what its holder may do")] = "viewer",
    file: Annotated[
        Path | None, Parameter(help="where its hash is added [GPUPING_TOKENS_FILE]")
    ] = None,
) -> int:
    """Make a token for the REST interface: its hash goes into the tokens file, the token itself is shown once."""
    from gpuping.commands.token_file import add

    print(add(load(level="error", GPUPING_TOKENS_FILE=file), name, role))
    return runner.DONE
