"""A scheduler that stands still together with its hosts bills none of them."""

import asyncio
import os
import time
from pathlib import Path

from msgspec.structs import replace

from bus.background import background
from bus.contract import subjects
from bus.contract.questions import RegisterReply, RegisterRequest
from bus.transport import micro_services
from scheduler.service import running
from tests.chaos.fleet import BEAT_SECONDS, Host, Life
from tests.history import until_history

STANDSTILL_SECONDS = 1.5
TIMES = 2
HOSTS = ("h0000", "h0001", "h0002")  # always up, as far as they live


async def test_a_machine_that_stands_still_bills_no_host(bus, base_settings, tmp_path: Path):
    """The hosts live in this process, too, so that a call that blocks stops everybody."""
    config = replace(base_settings, PING_BASE_INTERVAL_MINUTES=1.5 / 60)
    life = Life(tmp_path / "life")
    record = os.open(tmp_path / "answers", os.O_CREAT | os.O_WRONLY)

    async def live() -> None:
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            life.beat()

    async with running(config), background() as start:
        start(live())
        for agent_id in HOSTS:
            host = Host(agent_id, life, record)
            await bus.subscribe(subjects.ping(agent_id), cb=host.hear)
        await bus.flush()
        for agent_id in HOSTS:
            subject = subjects.register(agent_id)
            await micro_services.ask(
                bus, subject, RegisterRequest(), RegisterReply, who="scheduler"
            )
        for number in range(TIMES):
            await until_history(
                bus, lambda h, n=number: all(len(h[name]) >= 2 * n + 2 for name in HOSTS)
            )
            time.sleep(STANDSTILL_SECONDS)  # noqa: ASYNC251  # the event loop stands still
        wanted = 2 * TIMES + 2
        history = await until_history(bus, lambda h: all(len(h[name]) >= wanted for name in HOSTS))
    os.close(record)
    remarks = set()
    for states in history.values():
        for state in states:
            told = (state.last.outcome, state.last.seconds, state.last.window_seconds)
            assert state.last.verdict in {"first", "good", "excused"}, told
            remarks |= set(state.last.remarks)
    assert "stood_still" in remarks  # otherwise nothing was shown
