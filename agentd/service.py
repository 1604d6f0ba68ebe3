"""agentd, composed: probe, ledger, check loop, bus session, and the HTTP endpoints of agent mode.

The ledger runs whether or not there is a bus: a host that is cut off goes on measuring.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import structlog

from agentd import http
from agentd.check_loop import CheckLoop, read_clocks
from agentd.ledger.store import LedgerStore
from agentd.messaging.connection import BusSession
from agentd.messaging.responder import Responder
from agentd.probe_selection import open_probe
from agentd.samples import Probe
from bus import clock
from bus.background import background
from bus.contract import subjects
from bus.contract.questions import RegisterReply
from bus.settings import Settings

log = structlog.get_logger("agentd")

# How long entering waits for the bus. Without a bus the agent runs all the same.
BUS_WAIT_SECONDS = 2.0


class Agent:
    """A running agentd."""

    def __init__(
        self,
        agent_id: str,
        check_loop: CheckLoop,
        bus_session: BusSession,
    ) -> None:
        self.agent_id = agent_id
        self.check_loop = check_loop
        self.bus_session = bus_session
        self.responder = Responder(agent_id, check_loop, bus_session.health)
        self.http_port: int | None = None

    @property
    def registered(self) -> asyncio.Event:
        """Set once the registry knows the agent."""
        return self.bus_session.registered

    def on_registered(self, reply: RegisterReply) -> None:
        """From now on the host is judged by the GPUs that the registry names."""
        self.check_loop.queue(self.check_loop.ledger.enroll(reply.agent.expected_gpus))
        log.info(
            "agent_registered",
            agent=self.agent_id,
            status=reply.agent.status,
        )
        self.registered.set()


@asynccontextmanager
async def running(
    settings: Settings,
    *,
    agent_id: str | None = None,
    probe: Probe | None = None,
    state_dir: Path | None = None,
    serve_http: bool = False,
    metadata: dict[str, Any] | None = None,
) -> AsyncIterator[Agent]:
    """Runs an agentd for the length of a block, and closes `probe` when it ends, whoever made it.

    The block begins when the first check is in the ledger and, where there is a bus, the agent
    answers on it. Raises SettingsError, LedgerInUseError, or HttpPortError.
    """
    agent_id = subjects.check_agent_id(agent_id or settings.agent_id)
    probe = probe or open_probe(settings, agent_id)
    ledger_file = (state_dir or settings.agent_state_dir) / f"{agent_id}.ledger"
    try:
        with _opened_ledger(settings, ledger_file) as store:
            check_loop = CheckLoop(probe, store, settings.AGENT_GPU_CHECK_INTERVAL_SECONDS)
            agent = Agent(agent_id, check_loop, BusSession(settings, agent_id, metadata))
            async with _in_background(agent):
                if serve_http:
                    async with http.serving(agent.responder, settings) as agent.http_port:
                        yield agent
                else:
                    yield agent
    finally:
        await probe.close()


@contextmanager
def _opened_ledger(settings: Settings, path: Path) -> Iterator[LedgerStore]:
    """The ledger, taken over by this process. Its last records are written when the block ends."""
    store = LedgerStore(path, settings)
    store.open(read_clocks().wall)
    try:
        store.resume(secrets.token_hex(8), clock.boot_id(), read_clocks())
        yield store
    finally:
        store.stop(read_clocks())
        store.close()


@asynccontextmanager
async def _in_background(agent: Agent) -> AsyncIterator[None]:
    """Checks, writes and answers while the block runs; a crash of one of them ends the block."""
    check_loop = agent.check_loop
    bus_session = agent.bus_session
    async with background() as start:
        start(check_loop.check())
        start(check_loop.save())
        start(bus_session.run(agent.responder.endpoints(), agent.on_registered))
        await check_loop.observed.wait()
        await _wait_for_bus(bus_session)
        yield


async def _wait_for_bus(bus_session: BusSession) -> None:
    try:
        async with asyncio.timeout(BUS_WAIT_SECONDS):
            await bus_session.serving.wait()
    except TimeoutError:
        log.warning(
            "bus_connect_timed_out",
            action="the ledger runs; the agent answers once there is a bus",
        )
