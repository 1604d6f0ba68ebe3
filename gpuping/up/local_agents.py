"""The agents that `up` runs itself: one for this machine, and test agents with simulated GPUs."""

import ctypes
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from bus.settings import Settings

DEFAULT_SCENARIO = "healthy"


class LocalAgent(NamedTuple):
    """One agent in this process. `scenario` is None where it watches real GPUs."""

    agent_id: str
    state_dir: Path
    scenario: str | None
    metadata: Mapping[str, Any] = MappingProxyType({})


def planned_agents(
    settings: Settings,
    *,
    for_this_machine: bool,
    tests: int,
) -> list[LocalAgent]:
    """This machine's agent where it is wanted, and `tests` test agents `sim-001`, `sim-002`, ...

    Every start gives the same ids and the same state folders, so that each agent finds its ledger
    again.
    """
    agents = []
    if for_this_machine:
        scenario = _scenario_of_this_machine(settings)
        agents.append(LocalAgent(settings.agent_id, settings.agent_state_dir, scenario))
    for number in range(1, tests + 1):
        agent_id = f"sim-{number:03}"
        state_dir = settings.data_dir / "agents" / agent_id
        scenario = settings.AGENT_SCENARIO or DEFAULT_SCENARIO
        agents.append(LocalAgent(agent_id, state_dir, scenario))
    return agents


def _scenario_of_this_machine(settings: Settings) -> str | None:
    """AGENT_SCENARIO where it is set. Otherwise None with an NVIDIA driver, else healthy GPUs."""
    if settings.AGENT_SCENARIO:
        return settings.AGENT_SCENARIO
    if has_nvidia_driver():
        return None
    return DEFAULT_SCENARIO


def has_nvidia_driver() -> bool:
    """Whether the driver's management library can be loaded. Nothing in it is called."""
    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return False
    return True


async def start(
    stack: AsyncExitStack,
    settings: Settings,
    agent: LocalAgent,
) -> None:
    """Runs the agent until the stack is closed."""
    from agentd import probe_selection, service

    metadata = dict(agent.metadata)
    if agent.scenario:
        metadata |= {"simulated": True, "scenario": agent.scenario}
    probe = probe_selection.open_probe(settings, agent.agent_id, agent.scenario)
    running = service.running(
        settings,
        agent_id=agent.agent_id,
        probe=probe,
        state_dir=agent.state_dir,
        metadata=metadata,
    )
    await stack.enter_async_context(running)
