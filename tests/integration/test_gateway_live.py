"""The event stream on real sockets: events arrive at once, missed ones are replayed, none leaks."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import msgspec
import pytest

from bus.contract import subjects
from bus.contract.questions import LiveEvent
from bus.transport.connection import connected
from gateway import service
from gateway.routes.events import HEARTBEAT_SECONDS
from tests.event_stream import EventStream
from tests.gateway_behind import NOW, agent, ping, quick

EVENTS = "/ping-system/events"


def outcome(seq: int, previous: str = "healthy") -> LiveEvent:
    return LiveEvent(
        kind="ping",
        agent_id="a",
        at=NOW,
        agent=agent("a", status="healthy"),
        ping=ping("a", seq),
        previous_status=previous,
    )


@asynccontextmanager
async def following(http: httpx.AsyncClient, last: str | None = None) -> AsyncIterator[EventStream]:
    headers = {"Last-Event-ID": last} if last else {}
    async with http.stream("GET", EVENTS, headers=headers) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        yield EventStream(response)


async def viewers(http: httpx.AsyncClient) -> int:
    text = (await http.get("/metrics")).text
    (line,) = [
        line for line in text.splitlines() if line.startswith("gpuping_gateway_event_streams ")
    ]
    return int(float(line.split()[1]))


async def until_viewers(http: httpx.AsyncClient, count: int) -> None:
    async with asyncio.timeout(60):
        while await viewers(http) != count:  # noqa: ASYNC110  # the count is read over HTTP
            await asyncio.sleep(0.02)  # polling: only this metric tells that a stream closed


async def test_outcomes_and_status_changes_arrive_at_once_at_every_subscriber(both):
    http, behind = both
    async with following(http) as one, following(http) as other:
        await behind.happens(outcome(1, previous="poor"))
        for reader in (one, other):
            first = await reader.next()
            assert first["event"] == "ping"
            data = json.loads(first["data"])
            assert (data["agent_id"], data["ping"]["ping_seq"], data["previous_status"]) == (
                "a",
                1,
                "poor",
            )
            change = await reader.next()
            assert change["event"] == "status"
            assert json.loads(change["data"])["status"] == "healthy"
        await behind.happens(LiveEvent(kind="removed", agent_id="a", at=NOW))
        assert (await one.next())["event"] == "removed"
    await until_viewers(http, 0)


async def test_the_first_bytes_come_before_anything_happens(both):
    http, _ = both
    async with http.stream("GET", EVENTS) as response:
        async with asyncio.timeout(HEARTBEAT_SECONDS / 2):
            assert (await anext(response.aiter_bytes())).startswith(b": gpuping\nretry: 2000\n\n")


async def test_a_subscriber_that_reconnects_gets_what_it_missed(both):
    http, behind = both
    async with following(http) as reader:
        await behind.happens(outcome(1))
        last = (await reader.next())["id"]
    for seq in (2, 3):
        await behind.happens(outcome(seq))
    async with following(http, last) as reader:
        seen = [json.loads((await reader.next())["data"])["ping"]["ping_seq"] for _ in range(2)]
        assert seen == [2, 3]
        await behind.happens(outcome(4))
        assert json.loads((await reader.next())["data"])["ping"]["ping_seq"] == 4


async def test_an_event_id_of_an_earlier_process_gets_a_reset(both):
    http, behind = both
    for last in ("elsewhere-7", "x", "-", "0", "1" * 300):
        async with following(http, last) as reader:
            assert (await reader.next())["event"] == "reset", last
            await behind.happens(outcome(5))
            assert (await reader.next())["event"] == "ping", last


def large(seq: int) -> LiveEvent:
    """An event so large that a few hundred fill the kernel's buffers of many megabytes."""
    return msgspec.structs.replace(
        outcome(seq), agent=agent("a", status="healthy", metadata={"x": "y" * 20_000})
    )


async def test_a_subscriber_that_does_not_read_is_dropped_and_delays_no_other(both):
    http, behind = both
    with socket.create_connection((http.base_url.host, http.base_url.port)) as unread:
        unread.sendall(b"GET /ping-system/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await until_viewers(http, 1)
        async with following(http) as reader:
            await until_viewers(http, 2)
            last = 0
            while last < 4_000 and await viewers(http) == 2:
                for seq in range(last + 1, last + 101):
                    await behind.happens(large(seq))
                while last < seq:
                    last = json.loads((await reader.next())["data"])["ping"]["ping_seq"]
            assert await viewers(http) == 1, "the viewer that does not read is still there"
            await behind.happens(outcome(last + 1))
            assert json.loads((await reader.next())["data"])["ping"]["ping_seq"] == last + 1


async def test_garbage_on_the_bus_is_skipped(both):
    http, behind = both
    async with following(http) as reader:
        for garbage in (b"", b"\xff", b"{}", b"[" * 5000):
            await behind.client.publish(subjects.event("a"), garbage)
        await behind.happens(outcome(1))
        assert json.loads((await reader.next())["data"])["ping"]["ping_seq"] == 1


async def test_a_gateway_stops_with_streams_open(base_settings):
    loop = asyncio.get_running_loop()
    async with httpx.AsyncClient(timeout=20) as http, connected(base_settings, "t"):
        async with service.running(quick(base_settings)) as gateway:
            responses = [
                await http.send(http.build_request("GET", gateway.url + EVENTS), stream=True)
                for _ in range(5)
            ]
            began = loop.time()
        assert loop.time() - began < HEARTBEAT_SECONDS  # it waits for nothing that they bring
        for response in responses:
            await response.aclose()


async def test_an_error_in_the_block_is_raised_unchanged(base_settings):
    with pytest.raises(ZeroDivisionError):
        async with service.running(quick(base_settings)):
            raise ZeroDivisionError


async def test_a_gateway_that_crashes_ends_its_block(base_settings, monkeypatch):
    class CrashError(Exception):
        pass

    async def crash(self, counter: int) -> bool:
        raise CrashError

    monkeypatch.setattr(
        "uvicorn.Server.on_tick", crash
    )  # uvicorn's code: no other way makes it crash
    with pytest.raises(CrashError):
        async with service.running(quick(base_settings)):
            await asyncio.Event().wait()


async def test_every_stream_is_told_which_parts_can_work(both):
    http, behind = both
    async with following(http) as reader:
        told = await reader.next("health")
        assert "id" not in told  # it holds for a moment only, and is not replayed
        health = json.loads(told["data"])
        assert [health[part] for part in ("bus", "scheduler", "storage")] == [True, True, True]
        behind.silent.add("stats")
        behind.silent.add("fleet")
        while health["storage"]:
            health = json.loads((await reader.next("health"))["data"])
        assert [health[part] for part in ("bus", "scheduler", "storage")] == [True, False, False]
        assert set(health["reasons"]) == {"scheduler", "storage"}
