"""`gpuping doctor`."""

from typing import Annotated, Literal

from cyclopts import Parameter

from bus import runner
from bus.runner import Lifecycle
from bus.settings import Settings
from gpuping.commands.command_settings import load_settings
from gpuping.commands.options import CHECK, DataDir, Json, app, examples
from gpuping.output import tables, terminal
from gpuping.output.findings import Finding
from gpuping.output.json_text import print_json

Service = Literal["scheduler", "storage", "enrolment", "alerts", "agentd"]
OnlyService = Annotated[
    Service | None,
    Parameter(help="only whether this service answers, for health checks"),
]


@app.command(
    group=CHECK,
    help_epilogue=examples("gpuping doctor", "NATS_URL=tls://bus.example gpuping doctor --json"),
)
def doctor(
    *,
    answers: OnlyService = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> int:
    """Check this machine and the bus, and say what to do.

    The exit code is 1 where something does not work.
    """
    settings = load_settings(default_log_level="error", GPUPING_DATA_DIR=data_dir)
    findings: list[Finding] = []

    async def main(_: Lifecycle) -> None:
        findings.extend(await _check(settings, answers))

    code = runner.run_command(main)
    if code != runner.DONE:
        return code
    if as_json:
        print_json(findings)
    else:
        terminal.console().print(tables.findings_table(findings))
    for finding in findings:
        if finding.level == "failure":
            return runner.FAILED
    return runner.DONE


async def _check(settings: Settings, service: Service | None) -> list[Finding]:
    from gpuping.doctor import examination

    if service is None:
        return await examination.examine(settings)
    return await examination.check_service(settings, service)
