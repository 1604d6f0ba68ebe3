"""The agents that `up` runs itself: one for this machine, and test agents with simulated GPUs."""

import ctypes
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple

from bus.settings import Settings
from gpuping import extras
from gpuping.lifecycle import Lifecycle

DEFAULT_SCENARIO = "healthy"


class LocalAgent(NamedTuple):
    """One agent in this process. `scenario` is None where real GPUs are watched."""

    agent_id: str
    state_dir: Path
    scenario: str | None


def planned(settings: Settings, *, local: bool, tests: int) -> list[LocalAgent]:
    """This machine's agent, and `sim-001`, `sim-002`, ...: the same ones, on the same ledgers, at every start."""
    agents = [LocalAgent(settings.agent_id, settings.agent_state_dir, local_scenario(settings))] if local else []
    for number in range(1, tests + 1):
        agent_id = f"sim-{number:03}"
        scenario = settings.AGENT_SCENARIO or DEFAULT_SCENARIO
        agents.append(LocalAgent(agent_id, settings.data_dir / "agents" / agent_id, scenario))
    return agents


def local_scenario(settings: Settings) -> str | None:
    """What this machine's agent plays: what was asked for, nothing with a driver, healthy GPUs without one."""
    if settings.AGENT_SCENARIO:
        return settings.AGENT_SCENARIO
    return None if has_nvidia_driver() else DEFAULT_SCENARIO


def has_nvidia_driver() -> bool:
    """Whether the driver's management library can be loaded; nothing in it is called here."""
    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return False
    return True


async def start(stack: AsyncExitStack, settings: Settings, agent: LocalAgent, *, serve_http: bool = False) -> None:
    """Runs the agent until the stack is closed."""
    with extras.needed("agentd"):
        from agentd import probe, service
    metadata: dict[str, Any] = {"simulated": True, "scenario": agent.scenario} if agent.scenario else {}
    await stack.enter_async_context(
        service.running(
            settings,
            agent_id=agent.agent_id,
            probe=probe.open_probe(settings, agent.agent_id, agent.scenario),
            state_dir=agent.state_dir,
            serve_http=serve_http,
            metadata=metadata,
        )
    )


async def run_alone(settings: Settings, lifecycle: Lifecycle, *, serve_http: bool) -> None:
    """This machine's agent and nothing else, until it is told to stop. It simulates only when it was asked to."""
    agent = LocalAgent(settings.agent_id, settings.agent_state_dir, settings.AGENT_SCENARIO)
    played = f" with simulated GPUs (scenario {agent.scenario})" if agent.scenario else ""
    print(f"agent {agent.agent_id}{played}, bus {settings.nats_url}", file=sys.stderr)
    if serve_http:
        print(f"http://{settings.AGENT_HTTP_HOST}:{settings.AGENT_HTTP_PORT}/agent/health", file=sys.stderr)
    async with AsyncExitStack() as stack:
        await start(stack, settings, agent, serve_http=serve_http)
        await lifecycle.until_stopped()
