"""The boards of deploy/grafana, and what their panels ask Prometheus for."""

import json
from collections.abc import Iterator
from pathlib import Path

BOARDS = sorted((Path(__file__).parents[1] / "deploy/grafana/dashboards").glob("*.json"))


def expressions_of(board: Path) -> Iterator[str]:
    """The expression of every panel, as Grafana would send it for all gateways."""
    content = json.loads(board.read_text())
    for panel in content["panels"]:
        for target in panel["targets"]:
            text = target["expr"].replace("$instance", ".*")
            yield text.replace("$__rate_interval", "30s")
