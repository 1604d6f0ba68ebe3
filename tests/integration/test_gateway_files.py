"""Files and monthly statements over REST: formats, the questions on the bus, refusals."""

import os

import httpx
import pytest

from bus.contract.exports import TABLES
from bus.contract.messages import Enrolment
from tests.gateway_behind import NOW, agent, ping


async def test_history_as_a_file_passes_through_byte_by_byte(http, behind):
    behind.agents["a"] = agent("a")
    behind.pings["a"] = [ping("a", 1)]
    behind.file = os.urandom(3_000_000)  # far more than one message holds
    for answer in (
        await http.get("/ping-system/agents/a/history?format=csv"),
        await http.get("/ping-system/agents/a/history", headers={"Accept": "text/csv"}),
        await http.get(
            "/ping-system/agents/a/history?format=parquet", headers={"Accept": "text/csv"}
        ),
    ):
        assert answer.status_code == 200
        assert answer.headers["content-type"] in {
            "text/csv; charset=utf-8",
            "text/parquet; charset=utf-8",
        }
        assert answer.headers["content-length"] == "3000000"
        assert "attachment" in answer.headers["content-disposition"]
        assert answer.content == behind.file


async def test_an_interrupted_file_is_noticed_by_the_client(http, behind):
    behind.agents["a"] = agent("a")
    behind.pings["a"] = [ping("a", 1)]
    behind.file = os.urandom(8_000_000)
    async with http.stream("GET", "/ping-system/agents/a/history?format=csv") as answer:
        assert answer.status_code == 200
        os.truncate(behind.offered, 1_000_000)
        with pytest.raises(httpx.RemoteProtocolError):
            await answer.aread()


@pytest.mark.parametrize("form", ["csv", "parquet"])
@pytest.mark.parametrize(
    "path", ["agents/{}/history?format={}", "export/incidents?agent_id={}&format={}"]
)
async def test_files_of_agents_without_history(http, behind, path, form):
    behind.agents["new"] = agent("new")
    behind.file = b"columns without rows"
    empty = await http.get("/ping-system/" + path.format("new", form))
    assert empty.status_code == 200
    assert empty.content == behind.file
    assert (await http.get("/ping-system/" + path.format("unknown", form))).status_code == 404


async def test_tables_of_history(http, behind):
    behind.file = b"a,b\n1,2\n"
    for name in TABLES:
        answer = await http.get(f"/ping-system/export/{name}?month=2026-10&by=day")
        assert answer.content == behind.file
        assert answer.headers["content-disposition"] == f'attachment; filename="{name}.csv"'
        _, asked = behind.asked[-1]
        assert (asked.table, asked.month, asked.by, asked.format) == (name, "2026-10", "day", "csv")
    behind.pings["a"] = [ping("a", 1)]
    accept = {"Accept": "application/vnd.apache.parquet"}
    await http.get("/ping-system/export/history?agent_id=a&hours=2.5", headers=accept)
    _, asked = behind.asked[-1]
    assert (asked.agent_id, asked.hours, asked.format) == ("a", 2.5, "parquet")
    board = await http.get("/ping-system/dashboard", headers={"Accept": "text/csv"})
    assert board.content == behind.file
    assert (await http.get("/ping-system/dashboard", headers={"Accept": "text/html"})).json()[
        "agents"
    ] == []


@pytest.mark.parametrize(
    "query",
    [
        "nonsense",
        "fleet?format=json",
        "fleet?by=minute",
        "agents?hours=0",
        "agents?month=2026-13",
        "agents?agent_id=a.b",
    ],
)
async def test_an_impossible_table_is_a_problem(http, behind, query):
    answer = await http.get(f"/ping-system/export/{query}")
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert not behind.asked


async def test_a_wrong_format_is_named_by_its_query_parameter(http):
    for path in ("export/fleet", "dashboard", "agents/a/report", "agents/a/history"):
        answer = await http.get(f"/ping-system/{path}?format=xml")
        assert [error["parameter"] for error in answer.json()["errors"]] == ["format"], path


async def test_the_fleet_under_other_rules(http, behind):
    answer = await http.get(
        "/ping-system/replay?month=2026-10&policy=livepeer&threshold=98&limit=7"
    )
    assert answer.json()["loses"] == 2
    _, asked = behind.asked[-1]
    assert (asked.month, asked.policy, asked.threshold, asked.limit) == (
        "2026-10",
        "livepeer",
        98.0,
        7,
    )
    behind.file = b"all of them"
    assert (await http.get("/ping-system/replay?threshold=98&format=csv")).content == behind.file
    assert (
        await http.get("/ping-system/replay?threshold=98", headers={"Accept": "text/csv"})
    ).content == behind.file
    for query in (
        "",
        "month=2026-10",
        "threshold=101",
        "threshold=98&format=html",
        "threshold=98&limit=0",
    ):
        refused = await http.get(f"/ping-system/replay?{query}")
        assert refused.status_code == 400, query
        assert refused.headers["content-type"] == "application/problem+json"


async def test_the_statement_of_a_month(http, behind):
    behind.agents["a"] = agent("a", enrolments=(Enrolment(NOW),))
    behind.pings["a"] = behind.pings["removed"] = [ping("a", 1)]
    answer = await http.get(
        "/ping-system/agents/a/report?month=2026-10&threshold=98&policy=livepeer"
    )
    assert answer.status_code == 200
    assert answer.json()["month"] == "2026-10"
    _, asked = behind.asked[-1]
    assert (asked.threshold, asked.policy, asked.enrolments) == (
        98.0,
        "livepeer",
        (Enrolment(NOW),),
    )
    assert (await http.get("/ping-system/agents/removed/report")).status_code == 200
    _, asked = behind.asked[-1]
    assert asked.enrolments == ()
    behind.file = b"<!doctype html><style>p { color: red }</style>"
    page = await http.get("/ping-system/agents/a/report?format=html")
    assert page.content == behind.file
    assert "sandbox" in page.headers["content-security-policy"]
    assert "script-src" not in page.headers["content-security-policy"]
    assert (await http.get("/ping-system/agents/unknown/report")).status_code == 404
    months = [
        f"month={month}&format=csv"
        for month in ("2026-13", "x", "0000-01", "9999-12", "2026-11%0A", "\uff12026-11")
    ]
    for query in (*months, "format=pdf", "threshold=101", "policy=" + "x" * 16_001):
        assert (await http.get(f"/ping-system/agents/a/report?{query}")).status_code == 400, query[
            :20
        ]


async def test_an_export_is_json_where_accept_says_so(http, behind):
    behind.agents["a"] = agent("a")
    answer = await http.get(
        "/ping-system/agents/a/history", headers={"Accept": "text/csv;q=0.1, application/json"}
    )
    assert answer.headers["content-type"] == "application/json"
