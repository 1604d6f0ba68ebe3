"""Each change is told once, and none is lost, while every process is killed. The slow form, with
the whole system, is tests/acceptance/test_alerts_killed.py.
"""

import asyncio
import os
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import nats.errors

from bus.contract import subjects
from bus.contract.messages import AgentState, encode
from bus.settings import Settings
from bus.transport.connection import Client
from bus.transport.embedded_server import EmbeddedServer
from tests import storage_states
from tests.alert_oracle import expected, told
from tests.alert_receivers import Hook, listening_hook
from tests.history import read_history

KILLS = 2
HOSTS = 20
ROUNDS = 3
# A dead process's claim stands for 30 s, which would be most of the time of this test.
QUICK = """
import sys
from gpuping import cli
from gpuping.alerts.deliver import sender
sender.CLAIM_SECONDS, sender.SEND_SECONDS = 3.0, 2.0
sys.exit(cli.main(["alerts", "run"]))
"""
# There is no storage here.
RULES = """
group_seconds = 0.2
[[rule]]
on = "storage-lag"
enabled = false
"""


class AlertsProcess:
    """`gpuping alerts run`, which can be killed and started again."""

    def __init__(self, settings: Settings, file: Path) -> None:
        self._environment = os.environ | {
            "NATS_URL": settings.nats_url,
            "GPUPING_DATA_DIR": str(settings.data_dir),
            "GPUPING_ALERTS_FILE": str(file),
            "LOG_LEVEL": "error",
        }
        self._child: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", QUICK), env=self._environment
        )

    async def kill(self) -> None:
        """SIGKILL: it gets no chance to tidy up."""
        if self._child is not None:
            self._child.kill()
            await self._child.wait()
            self._child = None


async def write(bus: Client, states: list[AgentState]) -> None:
    """Outcomes of different agents, each stored and in the history when this returns."""
    for state in states:
        async with asyncio.timeout(60):
            while True:
                try:
                    await bus.jetstream().publish(
                        subjects.state_key(state.agent_id), encode(state), timeout=2
                    )
                    break
                except (nats.errors.Error, TimeoutError):
                    await asyncio.sleep(0.1)  # the server was killed and comes back
    for state in states:
        async with asyncio.timeout(60):
            while True:
                try:
                    await storage_states.followed(bus, state)
                    break
                except (nats.errors.Error, TimeoutError):
                    await asyncio.sleep(0.1)


def outcomes(number: int) -> list[AgentState]:
    """One of each host: in odd rounds it is missing, in even ones it has recovered."""
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=number)
    is_missing = number % 2 == 1
    states = []
    for host in range(HOSTS):
        seconds = None if is_missing else storage_states.HEALTHY
        state = storage_states.state(f"host-{host}", number, at, seconds)
        states.append(msgspec.structs.replace(state, answered=3, recovering=is_missing))
    return states


async def test_killed_senders_and_server_tell_each_change_once(
    bus: Client, nats_server: EmbeddedServer, base_settings: Settings, tmp_path: Path
) -> None:
    with listening_hook() as hook:
        file = tmp_path / "alerts.toml"
        file.write_text(RULES + hook.toml())
        file.chmod(0o600)
        senders = [AlertsProcess(base_settings, file) for _ in range(2)]
        try:
            for sender in senders:
                await sender.start()
            await first_look(bus)
            for number in range(1, 1 + ROUNDS):
                await write(bus, outcomes(number))
                if number <= KILLS:
                    for sender in senders:
                        await sender.kill()
                    nats_server.process.kill()
                    for sender in senders:
                        await sender.start()
            wanted = await what_history_says(bus)
            assert len(wanted) == HOSTS * ROUNDS
            await told_by(hook, wanted)
        finally:
            for sender in senders:
                await sender.kill()
    assert hook.badly_signed == []


async def first_look(bus: Client) -> None:
    """Returns once a sender has looked at the fleet: what happens from now on is told."""
    async with asyncio.timeout(60):
        while True:
            try:
                await bus.jetstream().get_last_msg(subjects.ALERTS_STREAM, subjects.ALERTS_POSITION)
            except (nats.errors.Error, TimeoutError):
                await asyncio.sleep(0.05)
            else:
                return


async def what_history_says(bus: Client) -> Counter:
    wanted: Counter = Counter()
    for states in (await read_history(bus)).values():
        wanted += expected(states)
    return wanted


async def told_by(hook: Hook, wanted: Counter) -> None:
    """Waits until everything was told, and compares."""
    deadline = asyncio.get_running_loop().time() + 90
    while True:
        # a message that comes twice has the same id, by which a receiver knows it
        messages = {received.id: received.body for received in hook.received}
        got: Counter = Counter()
        for body in messages.values():
            got += Counter(told(change) for change in body["changes"])
        if got >= wanted:
            assert got == wanted
            return
        assert asyncio.get_running_loop().time() < deadline, wanted - got
        await asyncio.sleep(0.1)
