"""The commands that run something: `up`, `agentd`, `scheduler` and `gateway`."""

from types import ModuleType
from typing import Annotated, Any

from cyclopts import Parameter, validators
from msgspec.structs import replace

from bus import runner, standard_streams
from bus.private_files import hide_new_files
from bus.redaction import redact_address
from bus.runner import Lifecycle
from bus.settings import Settings
from gpuping import extras
from gpuping.client.bus_file import with_fleet_rules, with_running_bus
from gpuping.commands.command_settings import load_settings
from gpuping.commands.options import RUN, DataDir, Scenario, app, examples
from gpuping.output import terminal

UP_DESCRIPTORS = 64  # it has 33 open where one agent is, and its nats-server as many

DashboardHost = Annotated[
    str | None,
    Parameter(help="address of the dashboard and REST [GATEWAY_HOST: 127.0.0.1]"),
]
Enroll = Annotated[
    str | None,
    Parameter(help="join a fleet: TOKEN@HOST:PORT, as `gpuping enroll new` prints it"),
]
DashboardPort = Annotated[
    int | None,
    Parameter(help="its port, 0 for any free one [GATEWAY_PORT: 8000]"),
]
LocalAgent = Annotated[
    bool,
    Parameter(
        name="--agent",
        negative="--no-agent",
        help="an agent for this machine",
    ),
]
TestAgents = Annotated[
    int,
    Parameter(validator=validators.Number(gte=0, lte=1000), help="run N test agents, sim-001 ..."),
]
Demo = Annotated[
    bool,
    Parameter(
        negative="",
        help="twelve simulated hosts in mixed states, pinged every 6 s, with an invented month"
        " of history; in a data dir of its own",
    ),
]
DashboardInterval = Annotated[
    float | None,
    Parameter(
        validator=validators.Number(gt=0), help="print the dashboard here every so many seconds"
    ),
]
Install = Annotated[
    bool,
    Parameter(negative="", help="install and start it as a systemd service"),
]
Uninstall = Annotated[
    bool,
    Parameter(negative="", help="stop and remove that service; settings and ledger stay"),
]
Host = Annotated[str | None, Parameter(help="address to listen on [GATEWAY_HOST: 127.0.0.1]")]
Port = Annotated[int | None, Parameter(help="port to listen on [GATEWAY_PORT: 8000]")]


@app.command(
    group=RUN,
    help_epilogue=examples(
        "gpuping up",
        "gpuping up --demo",
        "gpuping up --port 8123 --register-agents 4 --scenario flapping --dashboard-interval 30",
        "PING_BASE_INTERVAL_MINUTES=0.5 gpuping up --data-dir ./data",
        "NATS_URL=tls://bus.example:4222 gpuping up --no-agent",
        "AGENT_MODE=true AGENT_ID=agent-001 gpuping up",
    ),
)
def up(
    *,
    host: DashboardHost = None,
    port: DashboardPort = None,
    data_dir: DataDir = None,
    agent: LocalAgent = True,
    register_agents: TestAgents = 0,
    scenario: Scenario = None,
    dashboard_interval: DashboardInterval = None,
    demo: Demo = False,
) -> int:
    """Run the whole system on this machine: bus, scheduler, storage, gateway and one agent.

    Without NATS_URL it runs a nats-server of its own. Everything is kept in the data dir; Ctrl-C
    stops it. With AGENT_MODE=true it is the agent alone, on the bus, with /agent/* on
    AGENT_HTTP_PORT.
    """
    settings = load_settings(
        GATEWAY_HOST=host,
        GATEWAY_PORT=port,
        GPUPING_DATA_DIR=data_dir,
        AGENT_SCENARIO=scenario,
        # the demo's agents start before its scheduler does, and would warn of that
        default_log_level="error" if demo else "warning",
    )
    if settings.AGENT_MODE:
        return _run_agent(settings)  # which a GPU host has all packages for
    with extras.needed("all"):
        from gpuping.up.announce import process_started
        from gpuping.up.demo import demo_settings
        from gpuping.up.system import Options
    started = process_started()
    if demo:
        settings = demo_settings(settings)
    options = Options(agent and not demo, register_agents, dashboard_interval, demo)

    async def main(lifecycle: Lifecycle) -> None:
        runner.ensure_descriptors(UP_DESCRIPTORS)
        await _run_up(settings, options, lifecycle, started)

    return runner.run(main)


async def _run_up(
    settings: Settings,
    options: Any,
    lifecycle: Lifecycle,
    started: float,
) -> None:
    from gpuping.up.announce import announce_until_stopped
    from gpuping.up.system import running

    standard_streams.prepare_service()
    hide_new_files()
    async with running(settings, options) as system:
        await announce_until_stopped(
            system,
            lifecycle,
            terminal.console(),
            started=started,
            dashboard_interval=options.dashboard_interval,
        )


@app.command(
    group=RUN,
    help_epilogue=examples(
        "NATS_URL=tls://bus.example:4222 AGENT_ID=agent-001 gpuping agentd",
        "gpuping agentd --scenario eight-gpus-one-bad",
        "gpuping agentd --enroll TOKEN@bus.example:4222",
        "sudo gpuping agentd --enroll TOKEN@bus.example:4222 --install",
        "sudo gpuping agentd --uninstall",
    ),
)
def agentd(
    *,
    scenario: Scenario = None,
    data_dir: DataDir = None,
    install: Install = False,
    uninstall: Uninstall = False,
    enroll: Enroll = None,
) -> int:
    """Run the agent of a GPU host: it watches GPUs, keeps the uptime ledger and answers pings.

    With --enroll it joins a fleet first; later starts need no option. With --install, which also
    upgrades, it becomes a service; with both, the service is the one that joins.
    """
    settings = load_settings(GPUPING_DATA_DIR=data_dir, AGENT_SCENARIO=scenario)
    if uninstall:
        _installer().uninstall()
        return runner.DONE
    if install:
        return _install(settings, enroll)
    if enroll is not None:
        code = _enroll(settings, enroll)
        if code != runner.DONE:
            return code
    return _run_agent(settings)


@app.command(
    group=RUN,
    help_epilogue=examples(
        "gpuping scheduler",
        "NATS_URL=tls://bus.example:4222 NATS_CREDS=scheduler.creds gpuping scheduler",
    ),
)
def scheduler(*, data_dir: DataDir = None) -> int:
    """Run a scheduler: it pings the agents that are due. Any number may run on one bus."""
    with extras.needed("server"):
        from bus.monitoring import service_metrics
        from scheduler import service
    loaded = load_settings(GPUPING_DATA_DIR=data_dir)
    settings = with_fleet_rules(with_running_bus(loaded, "scheduler"))

    async def main(lifecycle: Lifecycle) -> None:
        await runner.serve(
            "scheduler",
            service.running(settings),
            lifecycle,
            lambda running: service_metrics.serving(
                settings, "SCHEDULER_METRICS_PORT", running.metric_families
            ),
        )

    return runner.run(main)


@app.command(
    group=RUN,
    help_epilogue=examples(
        "gpuping gateway --port 8123",
        "GATEWAY_HOST=0.0.0.0 GPUPING_TOKENS_FILE=tokens.toml gpuping gateway",
        "GATEWAY_BRIDGE_NETWORKS=10.20.0.0/16 gpuping gateway",
    ),
)
def gateway(
    *,
    host: Host = None,
    port: Port = None,
    data_dir: DataDir = None,
) -> int:
    """Run a gateway: the dashboard, the REST interface and the metrics.

    With GATEWAY_BRIDGE_NETWORKS it also asks agents that know HTTP only, at their agent_url in
    these networks (docs/bridge.md).
    """
    with extras.needed("server"):
        from gateway import service
    loaded = load_settings(
        GATEWAY_HOST=host,
        GATEWAY_PORT=port,
        GPUPING_DATA_DIR=data_dir,
    )
    settings = with_running_bus(loaded, "gateway")
    return runner.run(
        lambda lifecycle: runner.serve("gateway", service.running(settings), lifecycle)
    )


def _installer() -> ModuleType:
    """The module that installs agentd as a service."""
    with extras.needed("agentd"):
        from agentd.host import install
    return install


def _install(settings: Settings, enroll: str | None) -> int:
    service = _installer()
    service.check_host()
    if enroll is not None:
        of_service = replace(settings, AGENT_STATE_DIR=str(service.STATE_DIR))
        code = _enroll(of_service, enroll)
        if code != runner.DONE:
            return code
        service.hand_over_state(service.STATE_DIR)
    service.install(settings)
    return runner.DONE


def _enroll(settings: Settings, token_at_address: str) -> int:
    with extras.needed("agentd"):
        from agentd.messaging import enrolment

    async def main(_: Lifecycle) -> None:
        enrolled = await enrolment.enroll(settings, token_at_address)
        runner.complain(
            f"enrolled as {enrolled.agent_id} on the bus at {redact_address(enrolled.nats_url)}"
        )

    return runner.run_command(main)


def _run_agent(loaded: Settings) -> int:
    """Runs this host's agent alone.

    It simulates GPUs only where a scenario was asked for, because a missing driver must not look
    healthy.
    """
    with extras.needed("agentd"):
        from agentd import process
        from agentd.messaging import enrolment
    settings = with_running_bus(enrolment.with_enrolment(loaded), "agent")
    simulation = ""
    if settings.AGENT_SCENARIO:
        simulation = f" with simulated GPUs (scenario {settings.AGENT_SCENARIO})"
    runner.complain(
        f"agent {settings.agent_id}{simulation}: connecting to {settings.shown_nats_url}; "
        "Ctrl-C stops it"
    )
    return process.run(settings, program="gpuping")
