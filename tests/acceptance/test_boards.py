"""Every question of the boards has an answer from a real Prometheus that scrapes a real system."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from system import until

from tests.ports import free_port
from tests.prometheus_boards import BOARDS, expressions_of

CONFIGURATION = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: ["{rules}"]
scrape_configs:
  - job_name: gpuping
    static_configs: [{{targets: ["{target}"]}}]
  - job_name: gpuping-agents
    params: {{agents: ["1"]}}
    metric_relabel_configs:
      - {{source_labels: [__name__], regex: gpuping_agent_.*, action: keep}}
    static_configs: [{{targets: ["{target}"]}}]
"""
RULES = Path(__file__).parents[2] / "deploy/prometheus/gpuping.rules.yml"


@contextmanager
def prometheus(folder: Path, target: str) -> Iterator[str]:
    """A Prometheus that scrapes a gateway, with the rules that are shipped."""
    port = free_port()
    configuration = folder / "prometheus.yml"
    configuration.write_text(CONFIGURATION.format(target=target, rules=RULES))
    address = f"127.0.0.1:{port}"
    options = (
        f"--config.file={configuration}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address={address}",
        "--log.level=error",
    )
    process = subprocess.Popen(["prometheus", *options])
    try:
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(20)


def answer(url: str, expression: str) -> list:
    found = httpx.get(f"{url}/api/v1/query", params={"query": expression}, timeout=20).json()
    assert found["status"] == "success", (expression, found)
    return list(found["data"]["result"])


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("prometheus") is None, reason="no Prometheus here")
def test_every_panel_has_data_and_the_rules_are_evaluated(launch, tmp_path: Path) -> None:
    up = launch(
        *("--no-agent", "--register-agents", "3", "--scenario", "flapping"),
        PING_BASE_INTERVAL_MINUTES="0.05",
    )
    up.printed("ready after", 300)
    up.ready()
    with prometheus(tmp_path, up.url.removeprefix("http://")) as url:
        until(lambda: _scraped(url), "scrapes", 120)
        asked = 0
        for board in BOARDS:
            for expression in expressions_of(board):
                asked += 1
                until(lambda e=expression: answer(url, e), expression, 120, 0.5)
        assert asked > 30
        rules = httpx.get(f"{url}/api/v1/rules", timeout=20).json()["data"]["groups"][0]["rules"]
        assert len(rules) == 21
        assert {rule["health"] for rule in rules} == {"ok"}
        assert answer(url, 'ALERTS{alertname="GpupingWatchdog", alertstate="firing"}')


def _scraped(url: str) -> bool:
    try:
        return bool(answer(url, 'gpuping_agents{job="gpuping"}'))
    except httpx.HTTPError:
        return False
