"""The verbs that run something: `up`, and one for each service."""

import os
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter, validators

from bus import logs, runner, settings
from bus.runner import Lifecycle
from bus.settings import Settings
from gpuping import extras
from gpuping.client.discovery import located
from gpuping.commands.options import RUN, DataDir, Scenario, app, examples
from gpuping.output import terminal

TestAgents = Annotated[
    int,
    Parameter(validator=validators.Number(gte=0, lte=1000), help="run N test agents, sim-001 ..."),
]
Interval = Annotated[
    float | None,
    Parameter(
        validator=validators.Number(gt=0), help="print the dashboard here every so many seconds"
    ),
]


@app.command(
    group=RUN,
    help_epilogue=examples(
        "gpuping up",
        "gpuping up --port 8123 --register-agents 4 --scenario flapping --dashboard-interval 30",
        "PING_BASE_INTERVAL_MINUTES=0.5 gpuping up --data-dir ./data",
        "NATS_URL=nats://bus.example:4222 gpuping up --no-agent",
        "AGENT_MODE=true AGENT_ID=agent-001 gpuping up",
    ),
)
def up(
    *,
    host: Annotated[
        str | None, Parameter(help="address of the dashboard and REST [GATEWAY_HOST: 127.0.0.1]")
    ] = None,
    port: Annotated[
        int | None, Parameter(help="its port, 0 for any free one [GATEWAY_PORT: 8000]")
    ] = None,
    data_dir: DataDir = None,
    agent: Annotated[
        bool, Parameter(name="--agent", negative="--no-agent", help="an agent for this machine")
    ] = True,
    register_agents: TestAgents = 0,
    scenario: Scenario = None,
    dashboard_interval: Interval = None,
) -> int:
    """Run the whole system on this machine: bus, scheduler, storage, gateway and one agent.

    Without NATS_URL it runs a nats-server of its own. Everything is kept in the data dir; Ctrl-C stops it.
    With AGENT_MODE=true it is the agent alone, on the bus, with /agent/* on AGENT_HTTP_PORT.
    """
    from gpuping.up import announce
    from gpuping.up import system as composition

    started = announce.process_started()
    loaded = load(
        GATEWAY_HOST=host,
        GATEWAY_PORT=port,
        GPUPING_DATA_DIR=data_dir,
        AGENT_SCENARIO=scenario,
        level="warning",
    )
    if loaded.AGENT_MODE:
        return _agent(loaded)
    options = composition.Options(agent, register_agents, dashboard_interval)
    return runner.run(lambda life: _up(loaded, options, life, started))


async def _up(loaded: Settings, options: Any, life: Lifecycle, started: float) -> None:
    from gpuping.up import announce
    from gpuping.up import system as composition

    async with composition.running(loaded, options) as system:
        await announce.until_stopped(
            system,
            life,
            terminal.console(),
            started=started,
            dashboard_interval=options.dashboard_interval,
        )


@app.command(
    group=RUN,
    help_epilogue=examples(
        "NATS_URL=nats://bus.example:4222 AGENT_ID=agent-001 gpuping agentd",
        "gpuping agentd --scenario eight-gpus-one-bad",
        "sudo gpuping agentd --install",
    ),
)
def agentd(
    *,
    scenario: Scenario = None,
    data_dir: DataDir = None,
    install: Annotated[
        bool, Parameter(negative="", help="install and start it as a systemd service")
    ] = False,
) -> int:
    """Run the agent of a GPU host: it watches the GPUs, keeps the uptime ledger and answers pings."""
    loaded = load(GPUPING_DATA_DIR=data_dir, AGENT_SCENARIO=scenario)
    if install:
        with extras.needed("agentd"):
            from agentd.host import install as installer
        installer.install(loaded)
        return runner.DONE
    return _agent(loaded)


@app.command(group=RUN)
def scheduler(*, data_dir: DataDir = None) -> int:
    """Run a scheduler: it pings the agents that are due. Any number may run on one bus."""
    with extras.needed("server"):
        from scheduler import service
    loaded = located(load(GPUPING_DATA_DIR=data_dir))
    return runner.run(lambda life: runner.serve("scheduler", service.running(loaded), life))


@app.command(group=RUN)
def gateway(
    *,
    host: Annotated[
        str | None, Parameter(help="address to listen on [GATEWAY_HOST: 127.0.0.1]")
    ] = None,
    port: Annotated[int | None, Parameter(help="port to listen on [GATEWAY_PORT: 8000]")] = None,
    data_dir: DataDir = None,
) -> int:
    """Run a gateway: the dashboard, the REST interface and the metrics."""
    with extras.needed("server"):
        from gateway import service
    loaded = located(load(GATEWAY_HOST=host, GATEWAY_PORT=port, GPUPING_DATA_DIR=data_dir))
    return runner.run(lambda life: runner.serve("gateway", service.running(loaded), life))


def _agent(loaded: Settings) -> int:
    """This host's agent alone. It simulates GPUs only when it was asked to: a missing driver must not look healthy."""
    with extras.needed("agentd"):
        from agentd import process
    found = located(loaded)
    played = (
        f" with simulated GPUs (scenario {found.AGENT_SCENARIO})" if found.AGENT_SCENARIO else ""
    )
    runner.complain(
        f"agent {found.agent_id}{played} on the bus at {found.nats_url}; Ctrl-C stops it"
    )
    if found.AGENT_MODE:
        runner.complain(f"http://{found.AGENT_HTTP_HOST}:{found.AGENT_HTTP_PORT}/agent/health")
    return process.run(found, program="gpuping")


def load(*, level: str | None = None, **options: Any) -> Settings:
    """Settings of environment and options, with logging set up by them. LOG_LEVEL wins over the verb's `level`."""
    texts: dict[str, Any] = {
        name: str(value) if isinstance(value, Path) else value for name, value in options.items()
    }
    if not os.environ.get("LOG_LEVEL"):
        texts["LOG_LEVEL"] = level
    loaded = settings.load(**texts)
    logs.setup(loaded)
    return loaded
