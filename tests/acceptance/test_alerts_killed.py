"""Each change is told once and none is lost while everything is killed, again and again."""

import asyncio
import logging
import os
import random
import time
from collections import Counter
from pathlib import Path

import pytest
from system import Program, Up, until

from bus import settings
from bus.contract import subjects
from bus.transport import connection
from tests.alert_oracle import expected, told
from tests.alert_receivers import Hook, listening_hook
from tests.history import read_history

log = logging.getLogger(__name__)

KILLS = int(os.environ.get("ALERT_KILLS", "20"))
CHANGES = int(os.environ.get("ALERT_CHANGES", "1000"))
AGENTS = 40
START_SECONDS = 900.0  # on a machine that does other things, too
UNTOLD = (
    "escalated",
    "gpu-set-changed",
    "twin",
    "disconnected",
    "storage-lag",
    "disk",
    "clock",
    "certificate",
    "credential",
    "maintenance-budget",
)
SCENARIO = """
gpus = 2
[[event]]
at = 1.0
gpu = 0
state = "lost"
for = 2.0
every = 5.0
"""


def alerts_file(folder: Path, hook: Hook) -> Path:
    """Tells the hook of what the oracle knows, by a history alone."""
    text = "group_seconds = 1\n" + hook.toml()
    for rule in UNTOLD:
        text += f'[[rule]]\non = "{rule}"\nenabled = false\n'
    path = folder / "alerts.toml"
    path.write_text(text)
    path.chmod(0o600)
    return path


async def history_of(up: Up) -> dict:
    """Every outcome, read from the stream by an operator."""
    config = settings.load({}, NATS_URL=up.nats_url, NATS_CREDS=up.bus_file()["operator_creds"])
    inbox = subjects.service_inbox("operator")
    async with connection.connected(config, "test", inbox_prefix=inbox) as client:
        return dict(await read_history(client))


def wanted_by(up: Up) -> Counter:
    """What should have been told by now."""
    wanted: Counter = Counter()
    for states in asyncio.run(history_of(up)).values():
        wanted += expected(states)
    return wanted


def told_to(hook: Hook) -> Counter:
    """What was told. A message that came twice has one id, by which a receiver knows it."""
    messages = {received.id: received.body for received in hook.received}
    got: Counter = Counter()
    for body in messages.values():
        got += Counter(told(change) for change in body["changes"])
    return got


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_everything_killed_twenty_times(tmp_path: Path, programs: list[Program]) -> None:
    moments = random.Random(20261126)
    scenario = tmp_path / "blinking.toml"
    scenario.write_text(SCENARIO)
    with listening_hook() as hook:
        file = alerts_file(tmp_path, hook)
        variables = {
            "GPUPING_ALERTS_FILE": str(file),
            "PING_BASE_INTERVAL_MINUTES": "0.03",
            "PING_MAX_INTERVAL_HOURS": "0.0005",
            "AGENT_GPU_CHECK_INTERVAL_SECONDS": "0.5",
        }
        options = ("--no-agent", "--register-agents", str(AGENTS), "--scenario", str(scenario))

        def start() -> tuple[Up, Program]:
            up = Up(tmp_path / "data", *options, **variables)
            programs.append(up)
            up.printed("ready after", START_SECONDS)
            up.ready()
            folder = str(tmp_path / "data")
            second = Program("alerts", "run", "--data-dir", folder, **variables)
            programs.append(second)
            return up, second

        kills = 0
        up, second = start()
        while kills < KILLS or len(told_to(hook)) < CHANGES:
            time.sleep(moments.uniform(1.0, 8.0))  # the random moment is what is tested
            up.kill()
            second.kill()
            kills += 1
            log.warning("%d kills, %d changes told", kills, len(told_to(hook)))
            up, second = start()
        # At rest: no more pings, so that the history stands still.
        up.stop()
        second.stop()
        quiet = variables | {"PING_BASE_INTERVAL_MINUTES": "600", "PING_MAX_INTERVAL_HOURS": "24"}
        up = Up(tmp_path / "data", "--no-agent", **quiet)
        programs.append(up)
        up.printed("ready after", START_SECONDS)
        up.ready()
        wanted = Counter()

        def is_all_told() -> bool:
            wanted.clear()
            wanted.update(wanted_by(up))
            return told_to(hook) >= wanted

        until(is_all_told, "everything is told", seconds=180, step=2.0)
        got = told_to(hook)
        assert got - wanted == Counter()
        assert max(got.values()) == 1
        repeated = len(hook.received) - len({received.id for received in hook.received})
        log.warning(
            "%d kills, %d changes, %d messages sent twice", kills, sum(got.values()), repeated
        )
    assert hook.badly_signed == []
