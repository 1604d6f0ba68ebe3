"""The whole REST interface with a real scheduler, storage and agentd behind the gateway."""

import asyncio
import contextlib
import csv
import io
from collections.abc import AsyncIterator

import duckdb
import httpx
import msgspec
import pytest

import agentd.service
import scheduler.service
import storage.service
from bus import settings
from bus.contract.exports import TABLES
from bus.settings import Settings
from gateway import service
from tests.waiting import clear_of_months_end

AGENTS = "/ping-system/agents"
# the signed report, which Parquet has and a spreadsheet has not
EVIDENCE = ["report", "signature"]
COLUMNS = (
    "agent_id,ping_seq,pinged_at,outcome,verdict,reason,uptime_percent,up_seconds,"
    "degraded_seconds,down_seconds,unknown_seconds,excused_seconds,window_seconds,"
    "consecutive_poor_uptime,interval_minutes,next_ping_at,"
    "response_ms,late_ms,remarks"
)


@pytest.fixture
def whole_settings(base_settings: Settings, tmp_path) -> Settings:
    return settings.load(
        {},
        NATS_URL=base_settings.NATS_URL,
        GPUPING_DATA_DIR=str(tmp_path / "data"),
        GATEWAY_PORT=0,
        PING_RESPONSE_TIMEOUT_SECONDS=4.0,  # a stall of this machine is no outage then
        AGENT_ID="real",
        AGENT_SCENARIO="healthy",
        AGENT_GPU_CHECK_INTERVAL_SECONDS=0.2,
    )


@pytest.fixture
async def http(whole_settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    async with fleet(whole_settings) as client, agentd.service.running(whole_settings):
        yield client


@contextlib.asynccontextmanager
async def fleet(config: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """The services, and a client of the gateway."""
    async with (
        scheduler.service.running(config),
        storage.service.running(config),
        service.running(config) as gateway,
        httpx.AsyncClient(base_url=gateway.url, timeout=20) as client,
    ):
        yield client


async def until(http: httpx.AsyncClient, path: str, is_so) -> dict:
    """The JSON answer, once it is as wanted: ingest follows the pings in its own time."""
    async with asyncio.timeout(60):
        while True:
            answer = await http.get(path)
            if answer.status_code == 200 and is_so(answer.json()):
                return answer.json()
            await asyncio.sleep(0.05)


async def test_the_whole_interface(http: httpx.AsyncClient, tmp_path):
    await clear_of_months_end()
    assert (await http.get("/readyz")).status_code == 200
    await until(
        http,
        f"{AGENTS}/real",
        lambda agent: agent["status"] == "healthy" or agent["total_pings"] > 0,
    )
    body = {
        "agent_id": "agent-001",
        "agent_url": "http://agent-host:8001",
        "metadata": {"gpu_model": "RTX 4090"},
    }
    assert (await http.post(f"{AGENTS}/register", json=body)).status_code == 201
    assert (await http.get(f"{AGENTS}/agent-001")).json()["metadata"] == body[
        "metadata"
    ]  # seen at once
    assert (await http.post(f"{AGENTS}/register", json=body)).status_code == 200

    missed = await http.post(f"{AGENTS}/agent-001/ping")
    assert missed.status_code == 504
    seq = missed.json()["ping"]["ping_seq"]
    answered = await http.post(f"{AGENTS}/real/ping")
    assert answered.status_code == 200
    assert (await http.get(f"{AGENTS}/real/uptime")).json()["gpu_available"] is True
    for question in ("gpu-status", "health"):
        assert (await http.get(f"{AGENTS}/real/{question}")).json()["agent_id"] == "real"

    page = await until(http, f"{AGENTS}/agent-001/history", lambda page: len(page["pings"]) >= seq)
    assert page["pings"][0]["outcome"] == "missed"
    assert page["summary"]["missed"] == seq
    board = await until(http, "/ping-system/dashboard", lambda board: len(board["recent"]) > 1)
    assert board["degraded"] == []
    assert {agent["agent_id"] for agent in board["agents"]} == {"real", "agent-001"}

    await files_and_statement(http, tmp_path)

    assert (await http.delete(f"{AGENTS}/agent-001")).status_code == 204
    assert (await http.get(f"{AGENTS}/agent-001")).status_code == 404
    assert (await http.post(f"{AGENTS}/agent-001/ping")).status_code == 404
    assert (await http.get(f"{AGENTS}/agent-001/history")).json()["pings"] == page["pings"]
    assert (await http.get(f"{AGENTS}/never/history")).status_code == 404
    metrics = (await http.get("/metrics")).text
    assert 'gpuping_service_up{service="storage"} 1.0' in metrics
    assert 'gpuping_pings_total{instance="' in metrics


async def files_and_statement(http: httpx.AsyncClient, tmp_path) -> None:
    await until(http, f"{AGENTS}/real/history", lambda page: len(page["pings"]) > 0)
    text = (await http.get(f"{AGENTS}/real/history?format=csv")).text
    assert text.partition("\n")[0] == COLUMNS
    rows = list(csv.DictReader(io.StringIO(text)))
    numbers = [int(row["ping_seq"]) for row in rows]
    assert numbers == list(range(len(rows), 0, -1)), "newest first, like the page"
    one = (await http.get(f"{AGENTS}/real/history?format=csv&limit=1")).text
    assert [row["ping_seq"] for row in csv.DictReader(io.StringIO(one))] == [rows[0]["ping_seq"]]
    older = (await http.get(f"{AGENTS}/real/history?format=csv&cursor=0-0")).text
    assert list(csv.DictReader(io.StringIO(older))) == []
    parquet = tmp_path / "history.parquet"
    parquet.write_bytes((await http.get(f"{AGENTS}/real/history?format=parquet")).content)
    assert duckdb.read_parquet(str(parquet)).columns == [*rows[0], *EVIDENCE]
    statement = await http.get(f"{AGENTS}/real/report")
    assert statement.status_code == 200, statement.text
    assert statement.json()["agent_id"] == "real"
    printable = await http.get(f"{AGENTS}/real/report?format=html")
    assert printable.headers["content-type"] == "text/html; charset=utf-8"
    assert (await http.get(f"{AGENTS}/real/report?policy=nonsense")).status_code == 400
    for table in TABLES:
        answer = await http.get(f"/ping-system/export/{table}?format=parquet")
        assert answer.status_code == 200, answer.text
        parquet.write_bytes(answer.content)
        columns = duckdb.read_parquet(str(parquet)).columns
        text = (await http.get(f"/ping-system/export/{table}")).text
        in_text = next(csv.reader(io.StringIO(text)))
        if table == "history":
            in_text += EVIDENCE
        assert in_text == columns
    board = list(
        csv.DictReader(io.StringIO((await http.get("/ping-system/dashboard?format=csv")).text))
    )
    assert {row["agent_id"] for row in board} == {"real", "agent-001"}
    replay = (await http.get("/ping-system/replay?threshold=50")).json()
    assert replay["gains"] + replay["loses"] + replay["same"] == len(replay["agents"])
    assert (await http.get("/ping-system/replay?policy=nonsense")).status_code == 400
    assert (await http.get("/ping-system/replay?threshold=50&month=2199-01")).status_code == 400


async def test_an_agent_removed_before_its_first_ping_has_an_empty_history(
    whole_settings, tmp_path
):
    later = msgspec.structs.replace(
        whole_settings, PING_FIRST_PING_GRACE_PERIOD=False
    )  # the first ping comes after a base interval
    async with fleet(later) as http:
        assert (
            await http.post(f"{AGENTS}/register", json={"agent_id": "brief"})
        ).status_code == 201
        assert (await http.delete(f"{AGENTS}/brief")).status_code == 204
        page = await http.get(f"{AGENTS}/brief/history")
        assert (page.status_code, page.json()["pings"]) == (200, [])
        assert (await http.get(f"{AGENTS}/brief/history?format=csv")).text.splitlines() == [COLUMNS]
        parquet = tmp_path / "history.parquet"
        parquet.write_bytes((await http.get(f"{AGENTS}/brief/history?format=parquet")).content)
        empty = duckdb.read_parquet(str(parquet))
        assert (empty.columns, empty.fetchall()) == ([*COLUMNS.split(","), *EVIDENCE], [])
