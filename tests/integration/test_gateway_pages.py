"""What browsers, probes and Prometheus fetch: page files, OpenAPI, badges, health, metrics."""

import asyncio
import json
import re
import shutil
import xml.etree.ElementTree as ET

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from bus.contract.exports import TABLES
from bus.contract.messages import Status
from bus.contract.questions import GpuSummary
from bus.contract.subjects import AGENT_ID_PATTERN
from gateway.app import ROUTES
from gateway.web.assets import STATIC_FOLDER, Assets
from tests.gateway_behind import agent, gateway_and_behind, quick


async def test_the_page_and_its_files(http):
    page = await http.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = page.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    script = await http.get("/static/js/main.js")
    assert script.headers["content-type"] == "text/javascript; charset=utf-8"
    icon = await http.get("/static/favicon.svg")
    assert icon.headers["content-type"] == "image/svg+xml"
    for answer in (page, script, icon):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-cache"
        unchanged = await http.get(answer.url, headers={"If-None-Match": answer.headers["etag"]})
        assert (unchanged.status_code, unchanged.content) == (304, b"")
        # A 304 replaces the headers that the browser stored. With the policy for data the page
        # could no longer load its own files.
        assert "content-security-policy" not in unchanged.headers


async def test_a_page_names_its_files_by_their_content_and_they_are_asked_for_once(http):
    """Both pages as `make web` built them: a script, a style, two fonts, an icon, a worker."""
    for path in ("/", "/map"):
        page = await http.get(path)
        assert page.headers["cache-control"] == "no-cache"
        named = re.findall(r'"(static/[^"]+)"', page.text)
        assert len(named) == 6
        for address in named:
            assert re.fullmatch(r"static/built/[\w-]+-[0-9A-Z]{8}\.\w+", address)
            file = await http.get(f"/{address}")
            assert file.status_code == 200
            assert file.headers["cache-control"] == "public, max-age=31536000, immutable"


async def test_a_file_of_another_build_is_answered_with_the_present_one(http):
    """While gateways of two builds stand behind one address, a page may ask either of them."""
    page = (await http.get("/")).text
    present = re.search(r"static/built/page-[0-9A-Z]{8}\.js", page)[0]
    other = await http.get("/static/built/page-00000000.js")
    assert other.status_code == 200
    assert other.content == (await http.get(f"/{present}")).content
    assert other.headers["cache-control"] == "no-cache"
    for unknown in ("age-00000000.js", "page-00000000.css", "page-0000.js", "page.js"):
        assert (await http.get(f"/static/built/{unknown}")).status_code == 404


async def test_a_page_whose_sources_changed_is_served_from_them(tmp_path):
    static = tmp_path / "static"
    shutil.copytree(STATIC_FOLDER, static, ignore=shutil.ignore_patterns("vendor"))
    assets = Assets(static)
    built = assets.page("index.html")
    assert b"static/built/" in built.body
    assert f'name="page-build" content="{assets.build_id()}"'.encode() in built.body
    source = static / "js/fleet.js"
    text = source.read_text()
    source.write_text(text + "\n")
    changed = assets.page("index.html")
    assert b"static/js/main.js" in changed.body
    assert assets.build_id() is None
    source.write_text(text)
    assert assets.page("index.html").body == built.body
    shutil.rmtree(static / "built")
    assert b"static/js/main.js" in assets.page("index.html").body


async def test_files_are_compressed_for_clients_that_accept_gzip(http):
    compressed = await http.get("/static/js/fleet.js", headers={"Accept-Encoding": "gzip"})
    plain = await http.get("/static/js/fleet.js", headers={"Accept-Encoding": "identity"})
    assert compressed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert compressed.content == plain.content
    assert int(compressed.headers["content-length"]) < int(plain.headers["content-length"])


@pytest.mark.parametrize(
    "path",
    [
        "../app.py",
        "%2e%2e/app.py",
        "..%2fapp.py",
        "js/%2e%2e/%2e%2e/app.py",
        "/etc/passwd",
        "%00",
        ".",
        "js",
    ],
)
async def test_nothing_outside_the_folder_is_served(http, path):
    answer = await http.get(f"/static/{path}")
    assert answer.status_code == 404
    assert b"import" not in answer.content


async def test_a_head_is_a_get_without_its_body(http, behind):
    for path in (
        "/",
        "/healthz",
        "/ping-system/agents",
        "/ping-system/events",
        "/static/js/main.js",
    ):
        answer = await http.head(path)
        assert (answer.status_code, answer.content) == (200, b"")


async def test_the_schema_page_is_the_openapi_document_for_a_client_that_accepts_json(http):
    described = (await http.get("/schema/openapi.json")).json()
    for accept in ("application/json", "application/vnd.oai.openapi+json"):
        answer = await http.get("/schema", headers={"Accept": accept})
        assert answer.json() == described
        assert answer.json()["openapi"].startswith("3.1")
    for accept in ("*/*", "text/html,application/xhtml+xml,application/json;q=0.9"):
        answer = await http.get("/schema", headers={"Accept": accept})
        assert answer.headers["content-type"].startswith("text/html")


async def test_the_description_covers_every_route_and_names_no_outside_address(http):
    answer = await http.get("/schema/openapi.json")
    described = answer.json()
    assert described["openapi"].startswith("3.1")
    for route in ROUTES:
        if route.resolve_include_in_schema() is False:
            continue
        for path in route.paths:
            operation = described["paths"][path.replace(":str", "")]
            assert set(operation) & {method.lower() for method in route.http_methods}
    register = described["paths"]["/ping-system/agents/register"]["post"]
    body = register["requestBody"]["content"]["application/json"]["schema"]
    assert set(body["properties"]) == {"agent_id", "agent_url", "capabilities", "metadata"}
    assert body["required"] == ["agent_id"]
    page = await http.get("/schema")
    address = re.search(r"static/built/api-[A-Z0-9]+\.js", page.text)[0]
    script = await http.get(f"/{address}")
    for text in (answer.text, page.text, script.text):
        assert "http://" not in text
        assert "https://" not in text
        assert "//" not in text


async def test_the_description_names_every_format(http):
    paths = (await http.get("/schema/openapi.json")).json()["paths"]
    csv, parquet = "text/csv", "application/vnd.apache.parquet"
    for path, others in {
        "/ping-system/agents/{agent_id}/history": {"application/json"},
        "/ping-system/agents/{agent_id}/report": {
            "application/json",
            "text/html",
            "application/vnd.gpuping.bundle+json",
        },
        "/ping-system/dashboard": {"application/json"},
        "/ping-system/replay": {"application/json"},
        "/ping-system/export/{table}": set(),
    }.items():
        assert set(paths[path]["get"]["responses"]["200"]["content"]) == {csv, parquet} | others, (
            path
        )
    export = paths["/ping-system/export/{table}"]["get"]
    assert all(f"`{table}`" in export["description"] for table in TABLES)
    policy = next(
        one for one in paths["/ping-system/replay"]["get"]["parameters"] if one["name"] == "policy"
    )
    assert "livepeer, runpod" in policy["description"]


async def test_the_description_says_what_an_agent_id_is(http):
    paths = (await http.get("/schema/openapi.json")).json()["paths"]
    seen = set()
    for path, operations in paths.items():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                if parameter["name"] == "agent_id":
                    assert parameter["schema"]["pattern"] == AGENT_ID_PATTERN, path
                    seen.add(parameter["in"])
    assert seen == {"path", "query"}


async def test_responses_without_a_body_are_described_without_one(http):
    paths = (await http.get("/schema/openapi.json")).json()["paths"]
    for path, operations in paths.items():
        for operation in operations.values():
            if "204" in operation["responses"]:
                assert not operation["responses"]["204"].get("content"), path


async def test_every_reference_in_the_description_resolves(http):
    described = (await http.get("/schema/openapi.json")).json()

    def references(value):
        if isinstance(value, dict):
            yield from ([value["$ref"]] if "$ref" in value else [])
            for child in value.values():
                yield from references(child)
        elif isinstance(value, list):
            for child in value:
                yield from references(child)

    found = set(references(described))
    assert found
    for reference in found:
        place = described
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]


async def test_badges(http, behind):
    colours = set()
    for status in Status.__args__:
        behind.agents["a"] = agent("a", status=status)
        behind.uptimes["a"] = 99.999
        badge = await http.get("/badge/a.svg")
        assert badge.headers["content-type"] == "image/svg+xml"
        assert badge.headers["cache-control"] == "max-age=30"
        picture = ET.fromstring(badge.text)  # noqa: S314  # our own answer
        assert picture.attrib["aria-label"] == f"a: {status} 99.99 %"
        colours.add(badge.text.split('fill="')[2][:7])
    assert len(colours) == len(Status.__args__)
    behind.agents["a"] = agent("a", status="healthy", simulated=True)
    badge = await http.get("/badge/a.svg")
    assert "a: healthy 99.99 %, simulated" in badge.text
    assert (await http.get("/badge/unknown.svg")).status_code == 404
    assert (await http.get("/badge/a.b.svg")).status_code == 400


async def test_readiness_names_what_is_missing(base_settings):
    for scheduler, storage, missing in (
        (1, 1, []),
        (1, 0, ["storage"]),
        (0, 1, ["scheduler"]),
        (0, 0, ["scheduler", "storage"]),
    ):
        async with gateway_and_behind(
            quick(base_settings), scheduler=bool(scheduler), storage=bool(storage)
        ) as (
            http,
            _,
        ):
            answer = await http.get("/readyz")
            assert answer.status_code == (503 if missing else 200)
            assert answer.json().get("missing", []) == missing
            assert (await http.get("/healthz")).json() == {"status": "ok"}


async def test_readiness_without_the_bus(http, nats_server):
    nats_server._supervisor.cancel()  # the server is not restarted
    nats_server.process.kill()
    await nats_server.process.wait()
    missing: list[str] = []
    async with asyncio.timeout(60):
        while missing != ["bus", "scheduler", "storage"]:
            answer = await http.get("/readyz")
            missing = answer.json().get("missing", [])
    assert answer.status_code == 503
    assert (await http.get("/healthz")).status_code == 200


def samples(text: str) -> dict[tuple, float]:
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in parse_text(text)
        for sample in family.samples
    }


async def test_metrics_of_fleet_gateway_and_pings(http, behind):
    behind.agents = {
        "a": agent("a", status="healthy", total_pings=3),
        "b": agent("b", status="poor"),
    }
    await http.get("/ping-system/agents/a")
    await http.get("/ping-system/agents/never-heard-of")
    answer = await http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    seen = samples(answer.text)
    assert seen["gpuping_agents", ("status", "healthy")] == 1
    assert seen["gpuping_agents", ("status", "missing")] == 0
    assert seen[("gpuping_due_agents",)] == 2
    assert seen[("gpuping_ingest_lag_outcomes",)] == 4
    assert seen[("gpuping_bus_connected",)] == 1
    assert seen["gpuping_service_up", ("service", "storage")] == 1
    assert seen["gpuping_build_info", ("version", "0.1.0")] == 1
    instance = ("instance", "s1")
    assert seen["gpuping_pings_total", instance, ("verdict", "good")] == 7
    assert seen["gpuping_pings_total", instance, ("verdict", "poor")] == 2
    assert seen["gpuping_ping_seconds_count", instance] == 7
    assert seen["gpuping_ping_seconds_bucket", instance, ("le", "0.01")] == 6
    assert seen["gpuping_ping_late_seconds_count", instance] == 9
    assert seen["gpuping_scheduler_held_back_seconds_total", instance] == 1.5
    route = ("route", "/ping-system/agents/{agent_id}")
    assert seen["gpuping_gateway_requests_total", ("code", "200"), ("method", "GET"), route] == 1
    assert seen["gpuping_gateway_requests_total", ("code", "404"), ("method", "GET"), route] == 1
    assert "never-heard-of" not in answer.text
    assert 'agent_id="' not in answer.text


async def test_metrics_of_each_agent(http, behind):
    gpus = (
        GpuSummary(uuid="g0", index=0, name="x", state="up"),
        GpuSummary(uuid="g1", index=1, name="x", state="down"),
    )
    behind.agents = {
        f"a{n:04}": agent(f"a{n:04}", uptime_percent=0.0 if n else None, gpus=gpus)
        for n in range(1_200)
    }
    text = (await http.get("/metrics?agents=true")).text
    seen = samples(text)
    assert (await http.get("/metrics?agents=1")).status_code == 200
    assert (
        seen["gpuping_agent_uptime_ratio", ("agent_id", "a1199")] == 0.0
    )  # of all pages, with every value
    assert ("gpuping_agent_uptime_ratio", ("agent_id", "a0000")) not in seen
    assert seen["gpuping_agent_gpus", ("agent_id", "a0000"), ("state", "down")] == 1


async def test_metrics_for_openmetrics_and_with_everything_away(base_settings):
    async with gateway_and_behind(quick(base_settings), scheduler=False, storage=False) as (
        http,
        _,
    ):
        answer = await http.get(
            "/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}
        )
        names = {family.name for family in parse_openmetrics(answer.text)}
        assert "gpuping_service_up" in names
        assert "gpuping_agents" not in names  # what is unknown is absent, and not 0


async def test_no_response_is_cached_unless_it_says_so(http, behind):
    for path in ("/ping-system/agents", "/ping-system/dashboard", "/nope", "/metrics", "/readyz"):
        assert (await http.get(path)).headers["cache-control"] == "no-store"
        assert json.dumps(dict((await http.get(path)).headers)).count("nosniff") == 1
