"""A data dir that an earlier version wrote opens, and every figure in its answers is the same.

`tests/data/stored_data_dir/data_dir.tar.xz` was written by two and a half minutes of `gpuping up`
with four test agents and a local one in the scenario `flapping`. One more agent never answered, one
was removed and registered again, one was pinged by hand, the bus was frozen twice, the whole system
was restarted once, and three agents were removed at the end. `answers.json.xz` holds what the
version that wrote it answered, collected by `collect` below.

No agent runs in this test, and the response timeout is an hour, so no ping ends while it asks: the
stored outcomes are all that there is.
"""

import asyncio
import csv
import fnmatch
import io
import json
import lzma
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import nats
import pytest
from system import Up

STORED = Path(__file__).parents[1] / "data" / "stored_data_dir"
AGENTS = ("dead", "host-a", "sim-001", "sim-002", "sim-003", "sim-004")
STILL_REGISTERED = ("dead", "sim-001", "sim-002")  # the other three were removed
MONTH = "2026-11"
TEN_YEARS_HOURS = 87_600
SETTINGS = {
    "PING_BASE_INTERVAL_MINUTES": "0.05",
    "PING_MAX_INTERVAL_HOURS": "0.004",
    "PING_RESPONSE_TIMEOUT_SECONDS": "3600",
    # By default the stored outcomes would leave the stream one day.
    "GPUPING_HISTORY_STREAM_DAYS": "36500",
}

# The paths of values that depend on when the question is asked, each with its reason. All others
# are compared.
DEPENDS_ON_NOW = {
    "*.generated_at": "the time of the answer",
    "*.uptime_24h_percent": "covers the 24 hours before the question",
    "agents.agents.*.next_ping_at": "never later than the longest interval from now",
    "dashboard.agents.*.next_ping_at": "never later than the longest interval from now",
    "statement *.final": "true a minute after the agent was removed, or once the month is over",
    "*.connected": "whether the agent is connected to the bus at this moment",
    "dashboard.uptime.*": "covers the 24 hours before the question",
    "dashboard.response_ms.*": "covers the 24 hours before the question",
    "dashboard.recent.*": "covers the 24 hours before the question",
    "dashboard.recent": "covers the 24 hours before the question",
    "dashboard.late_ms.*": "covers the 24 hours before the question",
    "dashboard.due": "the pings that are due now",
    "dashboard.totals.in_flight": "the pings that are in flight now",
    "export agents.*.until": "the period of the table ends now while the month runs",
    "export fleet.*.until": "the period of the table ends now while the month runs",
    "export response-times.*.until": "the period of the table ends now while the month runs",
    "export lateness.*.until": "the period of the table ends now while the month runs",
}
# While its month runs, the statement of an agent that is still registered covers the time up to its
# last outcome; once the month is over, it covers the time up to the month's end.
GROWS_TO_MONTH_END = (
    "statement {}.until",
    "statement {}.enrolled.*.until",
    "statement {}.enrolled_seconds",
    "statement {}.host.unreported_seconds",
    "statement {}.host.coverage_percent",
    "statement {}.host.uptime_percent",
    "statement {}.gpus.*.enrolled_seconds",
    "statement {}.gpus.*.unreported_seconds",
    "statement {}.gpus.*.coverage_percent",
    "statement {}.gpus.*.uptime_percent",
    "statement csv {}.*.enrolled_seconds",
    "statement csv {}.*.unreported_seconds",
    "statement csv {}.*.coverage_percent",
    "statement csv {}.*.uptime_percent",
)


def questions() -> dict[str, str]:
    """The path of each question, by the name that it has among the stored answers."""
    asked = {
        "agents": "/ping-system/agents",
        "dashboard": "/ping-system/dashboard",
        "replay": f"/ping-system/replay?month={MONTH}&policy=livepeer",
        "replay threshold": f"/ping-system/replay?month={MONTH}&threshold=60",
    }
    for agent_id in AGENTS:
        agent = f"/ping-system/agents/{agent_id}"
        asked[f"history {agent_id}"] = f"{agent}/history?hours={TEN_YEARS_HOURS}&limit=1000"
        asked[f"statement {agent_id}"] = f"{agent}/report?month={MONTH}"
        asked[f"statement csv {agent_id}"] = f"{agent}/report?month={MONTH}&format=csv"
    for table in ("history", "incidents", "agents", "response-times", "lateness"):
        asked[f"export {table}"] = f"/ping-system/export/{table}?month={MONTH}"
    asked["export fleet"] = f"/ping-system/export/fleet?month={MONTH}&by=hour"
    return asked


def collect(up: Up) -> dict[str, Any]:
    """Every answer as JSON; of a CSV file, its rows."""
    answers: dict[str, Any] = {}
    with httpx.Client(base_url=up.url, timeout=30) as client:
        for name, path in questions().items():
            answer = client.get(path)
            assert answer.status_code == 200, f"{path}: {answer.status_code} {answer.text}"
            if answer.headers["content-type"].startswith("text/csv"):
                answers[name] = list(csv.DictReader(io.StringIO(answer.text)))
            else:
                answers[name] = answer.json()
    answers["states"] = asyncio.run(bucket_values(up.operator, "state."))
    answers["registrations"] = asyncio.run(bucket_values(up.operator, "agent."))
    return answers


async def bucket_values(operator: dict[str, Any], prefix: str) -> dict[str, Any]:
    """The values of the bucket whose keys begin with `prefix`, decoded."""
    client = await nats.connect(**operator)
    try:
        bucket = await client.jetstream().key_value("gpuping")
        values = {}
        for key in await bucket.keys():
            if key.startswith(prefix):
                entry = await bucket.get(key)
                assert entry.value is not None, key
                values[key] = json.loads(entry.value)
        return values
    finally:
        await client.close()


def differences(stored: Any, answered: Any, path: str) -> Iterator[str]:
    """One line for each value that differs from the stored one. Added fields are ignored."""
    if isinstance(stored, dict) and isinstance(answered, dict):
        for field, value in stored.items():
            if field not in answered:
                yield f"{path}.{field} is missing, was {value!r}"
            else:
                yield from differences(value, answered[field], f"{path}.{field}")
    elif isinstance(stored, list) and isinstance(answered, list):
        if len(stored) != len(answered):
            yield f"{path}: {len(answered)} elements, were {len(stored)}"
        for index, (before, after) in enumerate(zip(stored, answered, strict=False)):
            yield from differences(before, after, f"{path}.{index}")
    elif stored != answered or type(stored) is not type(answered):
        yield f"{path}: {answered!r}, was {stored!r}"


def depends_on_now(difference: str) -> bool:
    """Whether the path before the first colon depends on the time of the question."""
    patterns = list(DEPENDS_ON_NOW)
    for agent_id in STILL_REGISTERED:
        patterns += [pattern.format(agent_id) for pattern in GROWS_TO_MONTH_END]
    path = difference.split(":", 1)[0]
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)


def in_order(rows: list[dict[str, str]], columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a CSV file with only these columns, sorted, because some files have no order."""
    reduced = [{column: row[column] for column in columns if column in row} for row in rows]
    return sorted(reduced, key=lambda row: tuple(row.values()))


@pytest.fixture(scope="module")
def stored() -> dict[str, Any]:
    """What the version that wrote the data dir answered."""
    return dict(json.loads(lzma.decompress((STORED / "answers.json.xz").read_bytes())))


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What this version answers from a copy of it."""
    folder = tmp_path_factory.mktemp("stored")
    with tarfile.open(STORED / "data_dir.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    up = Up(folder / "data", "--no-agent", **SETTINGS)
    try:
        up.ready()
        yield collect(up)
    finally:
        up.stop()


@pytest.mark.parametrize("name", [*questions(), "states", "registrations"])
def test_answers_as_the_version_that_wrote_it(
    name: str, stored: dict[str, Any], answered: dict[str, Any]
) -> None:
    """Same fields, same values; more fields are allowed."""
    before, after = stored[name], answered[name]
    if name.startswith("export"):
        columns = list(before[0])
        before, after = in_order(before, columns), in_order(after, columns)
    found = [line for line in differences(before, after, name) if not depends_on_now(line)]
    assert not found


def test_stored_answers_have_what_can_go_wrong(stored: dict[str, Any]) -> None:
    """A comparison of empty answers would prove nothing."""
    outcomes = {row["outcome"] for row in stored["export history"]}
    verdicts = {row["verdict"] for row in stored["export history"]}
    assert outcomes == {"answered", "missed", "excused"}
    assert verdicts == {"first", "good", "poor", "excused"}
    assert len(stored["statement sim-004"]["enrolled"]) == 2
    seconds = stored["statement host-a"]["host"]["seconds"]
    assert min(seconds["up"], seconds["down"], seconds["unknown"]) > 1.0
    assert len(stored["states"]) == len(AGENTS)


def test_a_changed_figure_is_a_difference(stored: dict[str, Any]) -> None:
    """A millisecond that moves from down to up in one statement is found."""
    name = "statement host-a"
    changed = json.loads(json.dumps(stored[name]))
    changed["host"]["seconds"]["up"] += 0.001
    changed["added_since"] = True
    found = list(differences(stored[name], changed, name))
    assert [line.split(":")[0] for line in found] == ["statement host-a.host.seconds.up"]
