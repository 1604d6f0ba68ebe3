"""What `gpuping up --demo` puts into the bucket before its scheduler starts."""

from datetime import UTC, datetime
from pathlib import Path

from bus import settings
from bus.contract import subjects
from bus.contract.messages import AgentEntry, AgentState
from bus.identity import host
from bus.transport import bucket, connection
from gpuping.client import own_server
from gpuping.up import demo
from tests.ports import free_port


async def test_each_host_that_is_on_is_handed_over_with_the_key_that_it_signs_with(
    tmp_path: Path,
) -> None:
    """Otherwise its first reports are refused. No scheduler runs that could record the keys."""
    chosen = settings.load({}, GPUPING_DATA_DIR=str(tmp_path / "data"))
    keys: dict[str, str | None] = dict.fromkeys(one.agent_id for one in demo.HOSTS)
    entries: dict[str, AgentEntry] = {}
    states: dict[str, AgentState] = {}
    async with own_server.running(chosen, free_port()) as server:
        for agent in demo.planned_agents(server.settings):
            key = host.signing_key_of(agent.state_dir, agent.agent_id)
            keys[agent.agent_id] = key.public
        now = datetime.now(UTC)
        last_states = [list(demo._month(one, now))[-1] for one in demo.HOSTS]
        scheduler = server.settings_of("scheduler")
        await demo.seed_bucket(scheduler, last_states)
        inbox_prefix = subjects.service_inbox("scheduler")
        async with connection.connected(scheduler, "test", inbox_prefix=inbox_prefix) as client:
            for agent_id in keys:
                entry = await bucket.read(client, subjects.agent_key(agent_id), AgentEntry)
                state = await bucket.read(client, subjects.state_key(agent_id), AgentState)
                assert entry
                assert state
                entries[agent_id] = entry.value
                states[agent_id] = state.value
    assert {agent_id: entry.signing_key for agent_id, entry in entries.items()} == keys
    for before in last_states:
        assert states[before.agent_id].ping_seq == before.ping_seq + 1
