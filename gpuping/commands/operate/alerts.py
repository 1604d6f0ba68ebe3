"""`gpuping alerts`: what is wrong, who was told, test messages, silences, and the service."""

import re
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console

from bus import clock, runner
from bus.contract.alerts import (
    Alerts,
    AlertsRequest,
    EndSilenceRequest,
    RuleName,
    Silence,
    SilenceRequest,
    TestRequest,
    TestResults,
)
from bus.errors import SettingsError
from bus.runner import Lifecycle
from gpuping import extras
from gpuping.client.bus_file import with_running_bus
from gpuping.client.sources import Source
from gpuping.commands.command_settings import load_settings
from gpuping.commands.operate.author import author
from gpuping.commands.options import (
    CHECK,
    DataDir,
    Json,
    OneAgent,
    ServerUrl,
    app,
    examples,
)
from gpuping.commands.query import run_answer, run_query
from gpuping.output import alert_tables

alerts_app = App(
    name="alerts",
    group=CHECK,
    help_format="markdown",
    help="""\
Tell people what goes wrong: by mail, chat, pager or webhook, once about every change.

GPUPING_ALERTS_FILE names a TOML file (mode 600) with whom to tell:

    [[target]]
    name = "ops-mail"
    url = "mailtos://user:password@smtp.example.org?to=ops@example.org"

    [[target]]
    name = "pager"
    webhook = "https://pager.example.org/gpuping"
    secret = "a long random text"

Any address of apprise is an url. The ready-made rules tell of hosts that are missing, poor,
escalated or recovered, of GPUs, of disks, clocks, certificates and more: see docs/alerts.md.
`gpuping up` runs the service; elsewhere `gpuping alerts run` does.
""",
    help_epilogue=examples(
        "gpuping alerts test",
        "gpuping alerts list",
        'gpuping alerts silence --label site=FRA --for 2h --reason "power works"',
        'gpuping alerts silence agent-001 --rule missing --for 30m --reason "new fans"',
        "gpuping alerts unsilence 5f3a9c01d2e4",
    ),
)
app.command(alerts_app)

SHOWN_CHANGES = 20
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_UNIT_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}

Target = Annotated[str | None, Parameter(name="TARGET", help="only this target")]
For = Annotated[str, Parameter(name="--for", help="how long, such as 30m, 2h or 3d")]
Why = Annotated[str, Parameter(name="--reason", help="for those who wonder")]
SilenceId = Annotated[str, Parameter(name="SILENCE", help="as `list` shows it")]
ByRule = Annotated[RuleName | None, Parameter(name="--rule", help="only alerts of this rule")]
ByLabel = Annotated[
    list[str] | None,
    Parameter(
        name="--label",
        negative="",
        help="only hosts with this metadata, such as site=FRA; * and ? are wildcards",
    ),
]


@alerts_app.command(name="list")
def list_alerts(
    *,
    server_url: ServerUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> int:
    """List what is wrong, what was told, what could not be, and what is silenced."""

    def show(console: Console, found: Alerts) -> None:
        alert_tables.show(console, found, clock.utc_now())

    return run_answer(
        lambda source: source.alerts(AlertsRequest(limit=SHOWN_CHANGES)),
        show,
        data_dir,
        server_url,
        as_json=as_json,
    )


@alerts_app.command(name="test")
def send_test(
    target: Target = None,
    /,
    *,
    server_url: ServerUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> int:
    """Send a test message to one target or to all, now, and say what became of it.

    Exit code 1 where a target did not take it.
    """
    failed: list[str] = []

    async def ask(source: Source) -> TestResults:
        found = await source.test_alerts(TestRequest(target=target))
        failed.extend(result.target for result in found.results if result.error is not None)
        return found

    def show(console: Console, found: TestResults) -> None:
        if found.results:
            console.print(alert_tables.test_table(found.results))
        else:
            console.print("there is no target: name them in GPUPING_ALERTS_FILE")

    code = run_answer(ask, show, data_dir, server_url, as_json=as_json)
    if code == runner.DONE and failed:
        return runner.FAILED
    return code


@alerts_app.command
def silence(
    agent_id: OneAgent = None,
    /,
    *,
    lasting: For,
    reason: Why,
    rule: ByRule = None,
    label: ByLabel = None,
    server_url: ServerUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> int:
    """Tell nobody of some alerts for a while. What is still wrong at its end is told then."""
    match = _match(agent_id, rule, label or [])
    if not match:
        raise SettingsError("alerts silence: expected an agent's id, --rule or --label")
    request = SilenceRequest(match=match, seconds=_seconds(lasting), reason=reason, author=author())

    def show(console: Console, made: Silence) -> None:
        console.print(alert_tables.silences_table([made], clock.utc_now()))

    return run_answer(
        lambda source: source.silence_alerts(request), show, data_dir, server_url, as_json=as_json
    )


@alerts_app.command
def unsilence(
    silence_id: SilenceId,
    /,
    *,
    server_url: ServerUrl = None,
    data_dir: DataDir = None,
) -> int:
    """End a silence now. What it held back and is still wrong is told."""
    request = EndSilenceRequest(silence_id=silence_id, author=author())

    async def show(
        source: Source,
        _: Lifecycle,
        console: Console,
    ) -> None:
        ended = await source.end_silence(request)
        console.print(f"ended {ended.silence_id}, made by {ended.author}", markup=False)

    return run_query(show, data_dir, server_url)


@alerts_app.command
def run(*, data_dir: DataDir = None) -> int:
    """Run the alerts service. Any number may run on one bus; each change is told once."""
    with extras.needed("server"):
        from bus.monitoring import service_metrics
        from gpuping.alerts import service
    settings = with_running_bus(load_settings(GPUPING_DATA_DIR=data_dir), "alerts")

    async def main(lifecycle: Lifecycle) -> None:
        await runner.serve(
            "alerts",
            service.running(settings),
            lifecycle,
            lambda running: service_metrics.serving(
                settings, "ALERTS_METRICS_PORT", running.metric_families
            ),
        )

    return runner.run(main)


def _match(
    agent_id: str | None,
    rule: str | None,
    labels: list[str],
) -> dict[str, str]:
    match = {}
    for label in labels:
        name, equals, value = label.partition("=")
        if not name or not equals or not value:
            raise SettingsError(f"--label={label!r}: expected one like site=FRA")
        match[name] = value
    if agent_id is not None:
        match["agent_id"] = agent_id
    if rule is not None:
        match["rule"] = rule
    return match


def _seconds(text: str) -> float:
    found = _DURATION.fullmatch(text)
    if found is None or float(found[1]) <= 0:
        raise SettingsError(f"--for={text!r}: expected a duration like 30m, 2h or 3d")
    return float(found[1]) * _UNIT_SECONDS[found[2]]
