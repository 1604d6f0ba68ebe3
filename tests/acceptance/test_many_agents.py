"""Many agents on one machine, beside dead ones.

They are registered through REST, and real agentd bus clients answer. The promises of docs/guide.md
are held by medians, so that a busy machine does not decide; the figures themselves are printed
(`pytest -s`), and `make bench` measures what a ping costs.
"""

import asyncio
import statistics
import time
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from agentd.probe_selection import open_probe
from agentd.service import running
from bus import settings

ANSWER_SECONDS = 0.5  # docs/guide.md#what-to-expect; REST is held to the same
PATIENCE = 10  # other tests run beside this one
# A busy machine takes longer than 2 s to answer: what is late there is no finding of this test.
EVERY = {"PING_BASE_INTERVAL_MINUTES": "0.05", "PING_RESPONSE_TIMEOUT_SECONDS": "6"}


class Rest:
    """Timed requests: `took` holds the seconds of each."""

    def __init__(self, url: str) -> None:
        self._client = httpx.AsyncClient(base_url=url, timeout=20)
        self.took: list[float] = []

    async def ask(self, method: str, path: str, **options: object) -> httpx.Response:
        began = time.monotonic()
        answer = await self._client.request(method, path, **options)  # type: ignore[arg-type]
        self.took.append(time.monotonic() - began)
        return answer


async def register(rest: Rest, agent_id: str) -> None:
    body = {"agent_id": agent_id, "capabilities": ["gpu-compute"], "metadata": {"rack": 7}}
    answer = await rest.ask("POST", "/ping-system/agents/register", json=body)
    assert answer.status_code in {200, 201}, answer.text


async def outcomes(rest: Rest, agent_id: str) -> list[dict]:
    answer = await rest.ask("GET", f"/ping-system/agents/{agent_id}/history?hours=1")
    assert answer.status_code == 200, answer.text
    return list(reversed(answer.json()["pings"]))


@pytest.mark.parametrize(
    ("agents", "dead_agents"), [(25, 5), pytest.param(100, 20, marks=pytest.mark.slow)]
)
async def test_many_agents_are_pinged_on_time_beside_dead_ones(
    launch, tmp_path: Path, agents: int, dead_agents: int
) -> None:
    up = await asyncio.to_thread(lambda: launch("--no-agent", **EVERY).ready())
    rest = Rest(up.url)
    alive = [f"agent-{number:03d}" for number in range(agents)]
    dead = [f"dead-{number:03d}" for number in range(dead_agents)]
    async with AsyncExitStack() as stack:
        for agent_id in alive:
            config = settings.load(
                {},
                NATS_URL=up.nats_url,
                NATS_CREDS=up.credentials_of(agent_id),
                GPUPING_DATA_DIR=str(tmp_path / agent_id),
            )
            probe = open_probe(config, agent_id, "healthy")
            await stack.enter_async_context(running(config, agent_id=agent_id, probe=probe))
        for agent_id in alive + dead:
            await register(rest, agent_id)
        await _until_pinged(rest, alive[-1], 3)
        for agent_id in dead:
            await _until_pinged(rest, agent_id, 1)

        for path in (
            "/ping-system/agents",
            "/ping-system/dashboard",
            "/ping-system/agents/due-for-ping",
        ):
            assert (await rest.ask("GET", path)).status_code == 200
        histories = {agent_id: await outcomes(rest, agent_id) for agent_id in alive}
        missed = {agent_id: await outcomes(rest, agent_id) for agent_id in dead}

    for agent_id, pings in histories.items():
        assert {ping["outcome"] for ping in pings} == {"answered"}, agent_id
        assert [ping["ping_seq"] for ping in pings] == list(range(1, len(pings) + 1))
        assert pings[0]["verdict"] == "first"
        assert {ping["verdict"] for ping in pings[1:]} == {"good"}
    for agent_id, pings in missed.items():
        assert pings, agent_id
        assert {(ping["outcome"], ping["reason"]) for ping in pings} == {
            ("missed", "no_responders")
        }
    every = [ping for pings in histories.values() for ping in pings]
    figures = {
        "REST answer": sorted(rest.took),
        "ping answer": sorted(ping["response_ms"] / 1000 for ping in every),
        "lateness": sorted(ping["late_ms"] / 1000 for ping in every),
    }
    for name, seconds in figures.items():
        median, worst = statistics.median(seconds), seconds[-1]
        figure = f"median {1000 * median:.1f} ms, worst {1000 * worst:.1f} ms of {len(seconds)}"
        print(f"{name}: {figure}")  # noqa: T201  # shown by `pytest -s`
        assert median < PATIENCE * ANSWER_SECONDS, name


async def _until_pinged(rest: Rest, agent_id: str, times: int) -> None:
    async with asyncio.timeout(120):
        # Another process gives no event to wait for.
        while len(await outcomes(rest, agent_id)) < times:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
