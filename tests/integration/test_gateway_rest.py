"""The REST interface by its contract: fields, paging, and responses while a service is away."""

import asyncio

import msgspec
import pytest

from bus.contract.fleet_map import FleetUptimesRequest
from bus.contract.messages import encode
from tests.gateway_behind import GPU, agent, gateway_and_behind, gpu_status, ping


def _names(text: str) -> set[str]:
    return set(text.split())


AGENT_FIELDS = _names(
    "agent_id agent_url capabilities metadata status registered_at uptime_percent "
    "uptime_24h_percent consecutive_poor_uptime good_streak current_interval_minutes "
    "next_ping_at last_ping_at last_answered_at "
    "total_pings missed_pings last_response_ms connected gpus"
)
PING_FIELDS = _names(
    "agent_id ping_seq pinged_at outcome reason verdict uptime_percent seconds window_seconds "
    "consecutive_poor_uptime interval_minutes next_ping_at response_ms late_ms gpus"
)
GUIDE_BODY = {
    "agent_id": "agent-001",
    "agent_url": "http://agent-host:8001",
    "capabilities": ["gpu-compute", "image-generation"],
    "metadata": {"gpu_model": "RTX 4090"},
}


async def test_an_agent_is_registered_and_registered_again(http, behind):
    first = await http.post("/ping-system/agents/register", json=GUIDE_BODY)
    assert first.status_code == 201
    assert first.json() == GUIDE_BODY | {
        "status": "pending",
        "registered_at": "2026-11-23T12:00:00Z",
        "next_ping_at": "2026-11-23T12:00:00Z",
    }
    again = await http.post("/ping-system/agents/register", json=GUIDE_BODY)
    assert again.status_code == 200
    assert again.json() == first.json()


async def test_fields_left_out_of_a_registration_are_kept(http, behind):
    answer = await http.post(
        "/ping-system/agents/register", json={"agent_id": "a", "tomorrow": 1, "metadata": None}
    )
    assert answer.status_code == 201
    _, wanted = behind.asked[-1]
    assert (wanted.agent_url, wanted.capabilities, wanted.metadata) == (None, None, None)


async def test_lists_page_through_and_filter(http, behind):
    for number in range(5):
        status = "healthy" if number % 2 else "poor"
        behind.agents[f"a{number}"] = agent(
            f"a{number}", status=status, capabilities=("gpu",) if number == 3 else ()
        )
    behind.uptimes = {"a0": 0.0, "a1": 99.25}
    page = (await http.get("/ping-system/agents", params={"limit": 2})).json()
    assert [one["agent_id"] for one in page["agents"]] == ["a0", "a1"]
    assert page["total"] == 5
    assert [one["uptime_24h_percent"] for one in page["agents"]] == [0.0, 99.25]
    assert set(page["agents"][0]) >= AGENT_FIELDS
    rest = (await http.get("/ping-system/agents", params={"cursor": page["next_cursor"]})).json()
    assert [one["agent_id"] for one in rest["agents"]] == ["a2", "a3", "a4"]
    assert rest["next_cursor"] is None
    healthy = (await http.get("/ping-system/agents?status=healthy")).json()
    assert [one["agent_id"] for one in healthy["agents"]] == ["a1", "a3"]
    capable = (await http.get("/ping-system/agents?capability=gpu")).json()
    assert [one["agent_id"] for one in capable["agents"]] == ["a3"]
    asked = [what for name, what in behind.asked if name == "uptimes"]
    assert asked[0] == ("a0", "a1")  # one question for the whole page
    assert len(asked) == 4


async def test_lists_do_without_storage(http, behind):
    behind.agents["a"] = agent("a")
    behind.silent = {"uptimes"}
    one = (await http.get("/ping-system/agents/a")).json()
    assert one["agent_id"] == "a"
    assert one["uptime_24h_percent"] is None


async def test_due_agents(http, behind):
    behind.agents["a"] = agent("a")
    due = (await http.get("/ping-system/agents/due-for-ping")).json()
    assert set(due) == {"agents", "total"}
    assert ("list", "due") in [(name, getattr(what, "order", None)) for name, what in behind.asked]


async def test_removal(http, behind):
    behind.agents["a"] = agent("a")
    gone = await http.delete("/ping-system/agents/a")
    assert (gone.status_code, gone.content) == (204, b"")
    assert (await http.delete("/ping-system/agents/a")).status_code == 404
    assert (await http.get("/ping-system/agents/a")).status_code == 404


async def test_a_manual_ping_returns_its_outcome(http, behind):
    behind.agents["a"] = agent("a")
    behind.pings["a"] = [ping("a", 7)]
    answer = await http.post("/ping-system/agents/a/ping")
    assert answer.status_code == 200
    assert set(answer.json()) >= PING_FIELDS
    assert answer.json()["ping_seq"] == 7


async def test_a_missed_ping_is_a_504_that_carries_the_outcome(http, behind):
    behind.agents["a"] = agent("a")
    behind.pings["a"] = [ping("a", 8, "missed")]
    answer = await http.post("/ping-system/agents/a/ping")
    assert answer.status_code == 504
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["ping"]["ping_seq"] == 8
    assert answer.json()["ping"]["pinged_at"] == "2026-11-23T14:00:00Z"


async def test_history_pages_newest_first(http, behind):
    behind.agents["a"] = agent("a")
    behind.pings["a"] = [ping("a", seq) for seq in (3, 2, 1)]
    page = (
        await http.get("/ping-system/agents/a/history", params={"hours": 24, "limit": 2})
    ).json()
    assert [one["ping_seq"] for one in page["pings"]] == [3, 2]
    assert (page["agent_id"], page["hours"], page["summary"]["pings"]) == ("a", 24.0, 3)
    rest = (
        await http.get("/ping-system/agents/a/history", params={"cursor": page["next_cursor"]})
    ).json()
    assert [one["ping_seq"] for one in rest["pings"]] == [1]


async def test_history_of_new_removed_and_unknown_agents(http, behind):
    behind.agents["new"] = agent("new")
    assert (await http.get("/ping-system/agents/new/history")).json()["pings"] == []
    behind.pings["removed"] = [ping("removed", 1)]
    assert (await http.get("/ping-system/agents/removed/history")).status_code == 200
    assert (await http.get("/ping-system/agents/unknown/history")).status_code == 404


async def test_history_does_without_the_scheduler(gateway_settings):
    async with gateway_and_behind(gateway_settings, scheduler=False) as (http, behind):
        behind.pings["a"] = [ping("a", 1)]
        assert (await http.get("/ping-system/agents/a/history")).status_code == 200
        unsure = await http.get("/ping-system/agents/b/history")
        assert (
            unsure.status_code == 503
        )  # without the scheduler nobody knows whether the agent exists


async def test_the_dashboard_and_what_it_shows_without_storage(gateway_settings):
    async with gateway_and_behind(gateway_settings) as (http, behind):
        behind.agents["a"] = agent("a", status="poor")
        behind.pings["a"] = [ping("a", 1)]
        whole = (await http.get("/ping-system/dashboard")).json()
        assert set(whole) >= _names(
            "generated_at totals by_status uptime response_ms due agents recent"
        )
        assert whole["by_status"] == {
            "maintenance": 0, "pending": 0, "missing": 0, "poor": 1, "recovering": 0, "healthy": 0,
        }  # fmt: skip
        assert whole["totals"]["agents"] == 1
        assert whole["recent"][0]["ping_seq"] == 1
        assert whole["degraded"] == []
        behind.silent = {"overview", "uptimes"}
        part = (await http.get("/ping-system/dashboard")).json()
        assert part["degraded"] == ["storage"]
        assert (part["uptime"]["uptime_percent"], part["recent"], part["response_ms"]["p50"]) == (
            None,
            [],
            None,
        )
        assert part["agents"][0]["agent_id"] == "a"


async def test_questions_to_the_agent_itself(http, behind):
    behind.agents["a"] = agent("a")
    behind.agents["away"] = agent("away")
    await behind.serve_agent("a")
    assert (await http.get("/ping-system/agents/a/uptime")).json()["uptime_percent"] == 100.0
    status = (await http.get("/ping-system/agents/a/gpu-status")).json()
    assert status == msgspec.json.decode(encode(gpu_status("a")))
    assert status["gpus"][0]["temperature_celsius"] == 41
    assert status["gpus"][0]["reading_of_a_newer_agent"] == "kept"
    assert (await http.get("/ping-system/agents/a/health")).json()["agent_id"] == "a"
    for question in ("uptime", "gpu-status", "health"):
        assert (await http.get(f"/ping-system/agents/away/{question}")).status_code == 504
        assert (await http.get(f"/ping-system/agents/unknown/{question}")).status_code == 404


@pytest.mark.parametrize("garbage", [b"", b"\xff\xfe", b"[" * 100_000, b'{"agent_id": "b"}', b"[]"])
async def test_an_unreadable_report_of_an_agent_is_a_504(http, behind, garbage):
    behind.agents["a"] = agent("a")
    await behind.serve_agent("a", garbage)
    answer = await http.get("/ping-system/agents/a/uptime")
    assert answer.status_code == 504
    assert answer.headers["content-type"] == "application/problem+json"


BAD_GPUS = [
    {"uuid": 5},
    {},
    {"uuid": "GPU-a"},
    GPU | {"state": "splendid"},
    GPU | {"reasons": "hot"},
    GPU | {"temperature_celsius": "hot"},
    GPU | {"power_watts": {}},
    GPU | {"index": "first"},
    "GPU-a",
]


@pytest.mark.parametrize("gpu", BAD_GPUS)
async def test_invalid_gpus_are_a_504(http, behind, gpu):
    whole = msgspec.json.decode(encode(gpu_status("a"))) | {"gpus": [gpu]}
    for agent_id, answer in (("a", whole), ("b", {"gpus": [gpu]})):
        behind.agents[agent_id] = agent(agent_id)
        await behind.serve_agent(agent_id, msgspec.json.encode(answer))
        response = await http.get(f"/ping-system/agents/{agent_id}/gpu-status")
        assert response.status_code == 504
        assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("question", ["gpu-status", "health"])
@pytest.mark.parametrize("garbage", [b"", b"\xff\xfe", b"[" * 100_000, b'{"agent_id": "b"}', b"[]"])
async def test_unreadable_answers_of_an_agent_are_a_504(http, behind, question, garbage):
    behind.agents["a"] = agent("a")
    await behind.serve_agent("a", garbage)
    response = await http.get(f"/ping-system/agents/a/{question}")
    assert response.status_code == 504
    assert response.headers["content-type"] == "application/problem+json"


async def test_the_answer_of_another_agent_is_a_504(http, behind):
    behind.agents["a"] = agent("a")
    await behind.serve_agent("a", encode(gpu_status("b")))
    assert (await http.get("/ping-system/agents/a/gpu-status")).status_code == 504


@pytest.mark.parametrize("path", ["/worker/gpu-check", "/gpu-check"])
async def test_the_job_runners_question(http, behind, path):
    fields = {
        "uptime_percent": 98.0,
        "last_ping_at": agent("x").registered_at,
        "last_answered_at": agent("x").registered_at,
    }
    behind.agents["lost"] = agent("lost", status="missing", **fields)
    behind.agents["new"] = agent("new")
    lost = await http.post(path, json={"agent_id": "lost"})
    assert lost.status_code == 200
    assert lost.json() == {
        "agent_id": "lost",
        "uptime_percent": 98.0,
        "gpu_available": False,
        "status": "missing",
        "last_ping_at": "2026-11-23T12:00:00Z",
    }
    assert (await http.post(path, json={"agent_id": "new"})).json()["gpu_available"] is None
    assert (await http.post(path, json={"agent_id": "unknown"})).status_code == 404
    assert (await http.post(path, json={"agent": "new"})).status_code == 400


async def test_lists_of_a_hundred_agents_ask_no_more_than_those_of_one(http, behind):
    paths = ("/ping-system/agents", "/ping-system/dashboard", "/ping-system/agents/agent-000")
    questions: list[list[str]] = []
    for count in (1, 100):
        for number in range(count):
            name = f"agent-{number:03}"
            behind.agents[name] = agent(name)
        behind.asked.clear()
        for path in paths:
            assert (await http.get(path)).status_code == 200
        questions.append(sorted(name for name, _ in behind.asked if name != "stats"))
    assert questions[0] == questions[1]


async def test_chosen_agents_are_listed_as_all_are(http, behind):
    for name in ("a", "b", "c", "d"):
        behind.agents[name] = agent(name, status="healthy" if name < "c" else "poor")
    behind.uptimes = {"a": 99.5}
    chosen = "/ping-system/chosen-agents"
    asked = {"agent_ids": ["d", "a", "gone", "c"]}
    answer = (await http.post(chosen, json=asked)).json()
    assert [one["agent_id"] for one in answer["agents"]] == ["a", "c", "d"]
    assert (answer["total"], answer["next_cursor"]) == (3, None)
    assert answer["agents"][0]["uptime_24h_percent"] == 99.5
    query = {"status": "poor", "limit": 1, "offset": 1}
    poor = (await http.post(chosen, params=query, json=asked)).json()
    assert ([one["agent_id"] for one in poor["agents"]], poor["total"]) == (["d"], 2)
    longest = [f"{number:063}" for number in range(5_000)]
    assert (await http.post(chosen, json={"agent_ids": longest})).json()["total"] == 0
    bad = ([], ["a.b"], ["a", None], "a", [*longest, "a"])
    for agent_ids in bad:
        assert (await http.post(chosen, json={"agent_ids": agent_ids})).status_code == 400
    assert (await http.post(chosen, content=b"x" * 400_000)).status_code == 413


async def test_the_map_has_the_uptimes_of_a_day_asked_for_once(http, behind):
    behind.agents = {name: agent(name) for name in ("a", "b")}
    behind.uptimes = {"a": 99.97, "removed": 50.0}
    behind.nonsense.add("fleet-uptimes")
    assert (await http.get("/ping-system/fleet-map")).json()["columns"]["uptimes_24h"] == []
    behind.nonsense.clear()

    async def of_day() -> list[int]:
        answer = await http.get("/ping-system/fleet-map")
        return answer.json()["columns"]["uptimes_24h"]

    behind.asked.clear()
    answers = await asyncio.gather(*(of_day() for _ in range(5)))
    answers.append(await of_day())
    assert answers == [[999, -1]] * 6
    ((name, question),) = behind.asked
    assert name == "fleet-uptimes"
    # by default hosts are pinged every 15 minutes
    assert question == FleetUptimesRequest(judged_seconds=900.0)
