"""The rules and boards for Prometheus and Grafana.

promtool accepts and tests them, and every metric that they name is one of ours. That each board's
questions have answers is shown with a real Prometheus by tests/acceptance/test_boards.py.
"""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from gateway import metric_families
from tests.prometheus_boards import BOARDS, expressions_of

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy/prometheus/gpuping.rules.yml"
RULE_TESTS = ROOT / "deploy/prometheus/gpuping.rules.test.yml"
CONFIGURATION = ROOT / "deploy/prometheus/prometheus.yml"
METRIC = re.compile(r"\bgpuping_[a-z_]+\b")
SUFFIXES = ("_total", "_bucket", "_sum", "_count")
SOURCES = (*ROOT.glob("bus/monitoring/*_families.py"), Path(metric_families.__file__))
GATEWAY = (ROOT / "gateway/request_metrics.py", ROOT / "gateway/routes/metrics.py")
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="is Prometheus's")


def promtool(*arguments: object) -> str:
    command = ["promtool", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_promtool
def test_promtool_accepts_the_rules_and_the_configuration() -> None:
    assert "21 rules found" in promtool("check", "rules", RULES)
    promtool("check", "config", CONFIGURATION)


@needs_promtool
def test_each_rule_fires_when_it_should_and_not_before() -> None:
    promtool("test", "rules", RULE_TESTS)
    rules = set(re.findall(r"- alert: (\w+)", RULES.read_text()))
    tested = set(re.findall(r"Gpuping\w+", RULE_TESTS.read_text()))
    assert tested == rules


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.stem)
def test_every_panel_of_a_board_asks_for_metrics_that_exist(board: Path) -> None:
    named = set()
    for expression in expressions_of(board):
        named |= set(METRIC.findall(expression))
    assert named
    assert {name for name in named if not is_ours(name)} == set()


def test_every_rule_asks_for_metrics_that_exist() -> None:
    expressions = re.findall(r"expr: (.*)", RULES.read_text())
    named = {name for expression in expressions for name in METRIC.findall(expression)}
    assert {name for name in named if not is_ours(name)} == set()


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.stem)
def test_a_board_has_ids_titles_and_no_panel_over_another(board: Path) -> None:
    content: dict[str, Any] = json.loads(board.read_text())
    assert content["uid"].startswith("gpuping-")
    taken: set[tuple[int, int]] = set()
    for panel in content["panels"]:
        assert panel["title"]
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (place["x"] + column, place["y"] + row)
            for column in range(place["w"])
            for row in range(place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


def is_ours(name: str) -> bool:
    """Whether the product makes a family of this name."""
    return any(word in SPELLED for word in spellings(name))


def spellings(name: str) -> set[str]:
    """How a family's name may stand in the code: without prefix, unit of the type, or service."""
    found = {name.removeprefix("gpuping_")}
    for suffix in SUFFIXES:
        found |= {word.removesuffix(suffix) for word in found}
    for prefix in ("scheduler_", "agent_", "gateway_"):
        found |= {word.removeprefix(prefix) for word in found}
    return found


SPELLED = {
    word.removeprefix("gpuping_")
    for source in (
        *SOURCES,
        ROOT / "gateway/request_metrics.py",
        ROOT / "gateway/routes/metrics.py",
    )
    for word in re.findall(r'"([a-z_]+)"', source.read_text())
} | set(re.findall(r"gpuping_([a-z_]+)", "".join(source.read_text() for source in SOURCES)))
