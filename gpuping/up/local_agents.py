"""The agents that `up` runs itself: one for this machine, and test agents with simulated GPUs."""

import ctypes
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple

from bus.settings import Settings

DEFAULT_SCENARIO = "healthy"


class LocalAgent(NamedTuple):
    """One agent in this process. `scenario` is None where real GPUs are watched."""

    agent_id: str
    state_dir: Path
    scenario: str | None


def planned(settings: Settings, *, local: bool, tests: int) -> list[LocalAgent]:
    """This machine's agent, and `sim-001`, `sim-002`, ...: the same ones, on the same ledgers, at every start."""
    agents = (
        [LocalAgent(settings.agent_id, settings.agent_state_dir, local_scenario(settings))]
        if local
        else []
    )
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


async def start(stack: AsyncExitStack, settings: Settings, agent: LocalAgent) -> None:
    """Runs the agent until the stack is closed."""
    from agentd import probe_selection, service

    metadata: dict[str, Any] = (
        {"simulated": True, "scenario": agent.scenario} if agent.scenario else {}
    )
    await stack.enter_async_context(
        service.running(
            settings,
            agent_id=agent.agent_id,
            probe=probe_selection.open_probe(settings, agent.agent_id, agent.scenario),
            state_dir=agent.state_dir,
            metadata=metadata,
        )
    )
