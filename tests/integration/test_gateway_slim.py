"""The slim event stream: the rows on a screen, and once a second the totals of the fleet."""

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator

import httpx
import pytest

from bus.contract.messages import encode
from bus.contract.questions import GpuSummary, LiveEvent
from bus.settings import Settings
from tests.event_stream import EventStream
from tests.gateway_behind import NOW, Behind, agent, gateway_and_behind, ping, quick

SLIM = "/ping-system/events?view=slim"
Gateway = tuple[httpx.AsyncClient, Behind]


@pytest.fixture
async def both(base_settings: Settings) -> AsyncIterator[Gateway]:
    async with gateway_and_behind(quick(base_settings)) as pair:
        for name in ("a", "b"):
            pair[1].agents[name] = agent(name, status="healthy")
        yield pair


def outcome(agent_id: str, seq: int, status: str = "healthy") -> LiveEvent:
    gpu = GpuSummary(uuid="GPU-a", index=0, name="H100", state="degraded")
    return LiveEvent(
        kind="ping",
        agent_id=agent_id,
        at=NOW,
        agent=agent(agent_id, status=status, gpus=(gpu,), uptime_percent=99.97),
        ping=ping(agent_id, seq),
        previous_status="healthy",
    )


async def next_event(stream: EventStream, kind: str) -> tuple[str | None, dict]:
    """The id and the data of the next event of a kind."""
    fields = await stream.next(kind)
    return fields.get("id"), json.loads(fields["data"])


async def until_totals(events: EventStream, pings: int) -> dict:
    """The totals once so many pings were counted in."""
    while True:
        _, totals = await next_event(events, "totals")
        if totals["pings"] >= pings:
            return totals


async def test_only_the_rows_on_the_screen_have_events_and_all_are_in_the_totals(both: Gateway):
    http, behind = both
    async with http.stream("GET", f"{SLIM}&agents=a") as response:
        events = EventStream(response)
        _, before = await next_event(events, "totals")
        await behind.happens(outcome("b", 1, status="poor"))
        await behind.happens(outcome("a", 1))
        _, first = await next_event(events, "ping")
        assert first["agent_id"] == "a"
        totals = await until_totals(events, before["pings"] + 2)
    assert totals["by_status"]["poor"] == before["by_status"].get("poor", 0) + 1
    assert totals["by_status"]["healthy"] == before["by_status"]["healthy"] - 1


async def test_the_totals_tell_what_changed_anywhere(both: Gateway):
    http, behind = both
    async with http.stream("GET", SLIM) as response:
        events = EventStream(response)
        await next_event(events, "totals")
        await behind.happens(outcome("b", 7, status="missing"))
        while True:
            _, totals = await next_event(events, "totals")
            if totals["changes"]:
                break
    (change,) = totals["changes"]
    assert (change["agent_id"], change["previous_status"]) == ("b", "healthy")
    assert (change["status"], change["ping"]["ping_seq"]) == ("missing", 7)
    assert totals["changes_total"] == 1


async def test_the_map_gets_one_packed_update_a_host(both: Gateway):
    http, behind = both
    async with http.stream("GET", f"{SLIM}&map=true") as response:
        events = EventStream(response)
        await next_event(events, "totals")
        for seq in (1, 2):
            await behind.happens(outcome("b", seq, status="poor"))
        _, updates = await next_event(events, "map")
    assert updates["agents"][0] == ["b", "p", 999, 0, "g"]


async def test_a_stream_goes_on_where_the_dashboard_ended(both: Gateway):
    http, behind = both
    async with http.stream("GET", "/ping-system/events") as full:
        reader = EventStream(full)
        await behind.happens(outcome("a", 1))
        await next_event(reader, "ping")
        page = (await http.get("/ping-system/dashboard?beats=10")).json()
        await behind.happens(outcome("b", 2))
        await behind.happens(outcome("a", 3))
        await next_event(reader, "ping")
        await next_event(reader, "ping")
    async with http.stream("GET", f"{SLIM}&agents=a&after={page['last_event_id']}") as response:
        number, event = await next_event(EventStream(response), "ping")
    assert event["ping"]["ping_seq"] == 3
    assert number is not None


async def test_the_dashboard_brings_the_outcomes_of_its_first_rows(both: Gateway):
    http, behind = both
    behind.pings["a"] = [ping("a", seq) for seq in range(50, 0, -1)]
    page = (await http.get("/ping-system/dashboard?beats=10")).json()
    assert [one["ping_seq"] for one in page["beats"]["a"]] == list(range(50, 10, -1))
    assert (await http.get("/ping-system/dashboard")).json()["beats"] == {}
    beats = (await http.get("/ping-system/beats?agents=a,b&count=2")).json()["beats"]
    assert {name: len(of) for name, of in beats.items()} == {"a": 2}
    many = ",".join(f"a{number}" for number in range(101))
    assert (await http.get(f"/ping-system/beats?agents={many}")).status_code == 400


async def test_the_stream_is_compressed_and_every_piece_can_be_read_at_once(both: Gateway):
    """A hundred outcomes of one second take less than a tenth of what they say."""
    http, behind = both
    async with http.stream("GET", f"{SLIM}&agents=a") as response:
        assert response.headers["content-encoding"] == "gzip"
        unpacking = zlib.decompressobj(16 + zlib.MAX_WBITS)
        packed = 0
        text = b""
        for seq in range(1, 101):
            await behind.happens(outcome("a", seq))
        async with asyncio.timeout(60):
            async for piece in response.aiter_raw():
                packed += len(piece)
                text += unpacking.decompress(piece)
                if b'"ping_seq":100' in text:
                    break
    assert len(text) > 10 * packed


@pytest.mark.parametrize("path", ["/ping-system/dashboard", "/ping-system/agents", "/metrics"])
async def test_answers_are_compressed_for_those_who_accept_it(both: Gateway, path: str):
    http, behind = both
    for number in range(50):
        behind.agents[f"a{number}"] = agent(f"a{number}")
    async with http.stream("GET", path, headers={"Accept-Encoding": "gzip"}) as response:
        assert response.headers["content-encoding"] == "gzip"
        body = b"".join([piece async for piece in response.aiter_raw()])
    assert int(response.headers["content-length"]) == len(body)
    plain = await http.get(path, headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert len(gzip.decompress(body)) > len(body)


async def test_an_impossible_view_is_refused(both: Gateway):
    http, _ = both
    for query in ("view=thin", "view=slim&agents=a b", "view=slim&agents=../x"):
        assert (await http.get(f"/ping-system/events?{query}")).status_code == 400


def test_an_update_of_the_map_is_small():
    """About 45 bytes a host: a hundred a second are 4.5 kB before compression."""
    packed = encode(("gpu-host-00001", "h", 999, 0, "uuuuuuuu"))
    assert len(packed) < 45
