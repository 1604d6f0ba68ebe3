"""Opens the probe that the settings ask for: a scenario player, or NVML in a child process."""

from agentd import scenario
from agentd.health import store
from agentd.nvml.probe import NvmlProbe
from agentd.samples import Probe
from bus.clock import boottime
from bus.settings import Settings


def open_probe(
    settings: Settings,
    agent_id: str,
    scenario_name: str | None = None,
) -> Probe:
    """Returns a probe that was not asked anything yet. Raises SettingsError.

    `scenario_name`, a built-in scenario or a file, comes before AGENT_SCENARIO.
    """
    xids = store.load_xid_table(settings.AGENT_XID_TABLE)
    name = scenario_name or settings.AGENT_SCENARIO
    if name:
        return scenario.ScenarioProbe(
            scenario.load(name),
            agent_id,
            xids,
            boottime(),
        )
    memory_file = settings.agent_state_dir / "health.json"
    return NvmlProbe(settings.AGENT_GPU_CHECK_INTERVAL_SECONDS, xids, memory_file)
