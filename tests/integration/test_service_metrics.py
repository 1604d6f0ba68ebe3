"""`/metrics` of every service: promtool reads it, and the gateway shows every scheduler."""

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import httpx
import pytest
from msgspec.structs import replace
from prometheus_client.parser import text_string_to_metric_families as parse_text

import agentd.service
import gateway.service
import scheduler.service
import storage.service
from bus import settings
from bus.errors import SettingsError
from bus.identity import tokens
from bus.identity.authority import Authority
from bus.monitoring import service_metrics
from bus.monitoring.families import gauge
from bus.settings import Settings
from gpuping.alerts import service as alerts_service
from gpuping.enrolment import service as enrolment_service
from tests.waiting import until

PROCESS = {"process_resident_memory_bytes", "process_cpu_seconds", "process_open_fds"}
OF_SERVICE = {
    "scheduler": {"gpuping_scheduler_waiting_pings", "gpuping_scheduler_bucket_bytes"},
    "storage": {
        *("gpuping_poisoned_messages", "gpuping_ingest_lag_outcomes", "gpuping_stream_bytes"),
        *("gpuping_storage_disk_free_bytes", "gpuping_history_rows", "gpuping_ingest_waiting"),
        "gpuping_storage_engine_bytes",
    },
    "enrolment": {"gpuping_enrolments_granted"},
    "alerts": {"gpuping_alerts_notifications", "gpuping_alerts_oldest_unsent_seconds"},
    "agentd": {"gpuping_agentd_gpus", "gpuping_agentd_checks", "gpuping_bus_connected"},
    "gateway": {"gpuping_service_up", "gpuping_pings", "gpuping_stream_bytes"},
}


@pytest.fixture
def any_ports(base_settings: Settings) -> Settings:
    return replace(
        base_settings,
        AGENT_ID="a",
        AGENT_SCENARIO="eight-gpus-one-bad",
        AGENT_HTTP_PORT=0,
        GATEWAY_PORT=0,
        SCHEDULER_METRICS_PORT=0,
        STORAGE_METRICS_PORT=0,
        ENROLMENT_METRICS_PORT=0,
        ALERTS_METRICS_PORT=0,
    )


@pytest.fixture
async def urls(any_ports: Settings, tmp_path) -> AsyncIterator[dict[str, str]]:
    """Where each service of a whole system answers; a second scheduler has no port of its own."""
    authority = Authority.create(tmp_path / "authority")
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        other = await enter(scheduler.service.running(any_ports))
        one = await enter(scheduler.service.running(any_ports))
        await until(lambda: not one.peers.alone and not other.peers.alone)
        running = {
            "scheduler": one,
            "storage": await enter(storage.service.running(any_ports)),
            "enrolment": await enter(enrolment_service.running(any_ports, authority)),
            "alerts": await enter(alerts_service.running(any_ports)),
        }
        found = {}
        for name, service in running.items():
            setting = f"{name.upper()}_METRICS_PORT"
            serving = service_metrics.serving(any_ports, setting, service.metric_families)
            found[name] = f"http://127.0.0.1:{await enter(serving)}"
        agent = await enter(agentd.service.running(any_ports, serve_http=True))
        found["agentd"] = f"http://127.0.0.1:{agent.http_port}"
        found["gateway"] = (await enter(gateway.service.running(any_ports))).url
        yield found


def check_with_promtool(text: str) -> str:
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool here: it is Prometheus's")
async def test_every_service_shows_what_promtool_accepts(urls):
    async with httpx.AsyncClient(timeout=60) as http:
        answers = {name: await http.get(f"{url}/metrics") for name, url in urls.items()}
        with_agents = (await http.get(f"{urls['gateway']}/metrics?agents=true")).text
    for name, answer in answers.items():
        assert answer.status_code == 200
        shown = {family.name for family in parse_text(answer.text)}
        assert shown >= PROCESS | OF_SERVICE[name], name
        assert 'agent_id="' not in answer.text
        assert await asyncio.to_thread(check_with_promtool, answer.text) == "", name
    assert await asyncio.to_thread(check_with_promtool, with_agents) == ""
    pings = samples(answers["gateway"].text, "gpuping_scheduler_known_schedulers")
    assert [value for _, value in pings] == [2, 2], "both schedulers, by their instance"
    assert len({labels["instance"] for labels, _ in pings}) == 2
    gpus = samples(answers["agentd"].text, "gpuping_agentd_gpus")
    assert sum(value for _, value in gpus) == 8


def samples(text: str, name: str) -> list[tuple[dict[str, str], float]]:
    found = []
    for family in parse_text(text):
        found += [(sample.labels, sample.value) for sample in family.samples if sample.name == name]
    return found


async def answer_none() -> list:
    return [gauge("nothing", "Nothing", 0)]


async def test_outside_loopback_metrics_need_a_token(any_ports, tmp_path):
    open_to_all = replace(any_ports, GPUPING_METRICS_HOST="0.0.0.0")  # noqa: S104
    with pytest.raises(SettingsError, match="GPUPING_TOKENS_FILE"):
        async with service_metrics.serving(open_to_all, "STORAGE_METRICS_PORT", answer_none):
            pass
    secret, token = tokens.create("prometheus", "viewer")
    file = tmp_path / "tokens.toml"
    file.write_text(tokens.as_toml(token))
    protected = replace(open_to_all, GPUPING_TOKENS_FILE=str(file))
    async with (
        service_metrics.serving(protected, "STORAGE_METRICS_PORT", answer_none) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http,
    ):
        assert (await http.get("/metrics")).status_code == 401
        assert (await http.get("/healthz")).json() == {"status": "ok"}
        assert (await http.get("/metrics", headers=bearer("gpuping_no"))).status_code == 401
        assert (await http.get("/metrics", headers=bearer(secret))).status_code == 200


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def test_a_page_of_another_name_for_this_machine_is_refused(any_ports):
    async with (
        service_metrics.serving(any_ports, "STORAGE_METRICS_PORT", answer_none) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http,
    ):
        answer = await http.get("/metrics", headers={"Host": "rebound.example"})
        assert answer.status_code == 403


async def test_a_usual_port_that_is_taken_stops_no_service(any_ports, monkeypatch):
    async with service_metrics.serving(any_ports, "STORAGE_METRICS_PORT", answer_none) as taken:
        monkeypatch.setitem(service_metrics.USUAL_PORTS, "STORAGE_METRICS_PORT", taken)
        usual = replace(any_ports, STORAGE_METRICS_PORT=None)
        async with service_metrics.serving(usual, "STORAGE_METRICS_PORT", answer_none) as port:
            assert port is None
        asked_for = replace(any_ports, STORAGE_METRICS_PORT=taken)
        with pytest.raises(SettingsError, match=f"STORAGE_METRICS_PORT={taken}"):
            async with service_metrics.serving(asked_for, "STORAGE_METRICS_PORT", answer_none):
                pass


def test_the_settings_have_their_names():
    for name in service_metrics.USUAL_PORTS:
        assert getattr(settings.load({name: "9000"}), name) == 9000
        service = name.removesuffix("_METRICS_PORT").lower()
        assert service in OF_SERVICE, "every service that answers /metrics is looked at above"
