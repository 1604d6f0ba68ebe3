"""agentd, composed: probe, ledger, check loop, bus endpoints, registration and the HTTP endpoints of agent mode.

The ledger runs whether or not there is a bus: a host that is cut off still keeps its own books.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import structlog

from agentd import http
from agentd.check_loop import Daemon, moment
from agentd.ledger.store import Keeper
from agentd.messaging.connection import Link
from agentd.messaging.responder import Responder
from agentd.probe_selection import open_probe
from agentd.samples import Probe
from bus import clock
from bus.background import background
from bus.contract import subjects
from bus.contract.questions import RegisterReply
from bus.settings import Settings

log = structlog.get_logger("agentd")

BUS_PATIENCE_SECONDS = (
    2.0  # how long entering waits for the bus; without one the agent runs all the same
)


class Agent:
    """A running agentd."""

    def __init__(self, agent_id: str, daemon: Daemon, link: Link) -> None:
        self.agent_id = agent_id
        self.daemon = daemon
        self.link = link
        self.responder = Responder(agent_id, daemon, link.health)
        self.http_port: int | None = None

    @property
    def registered(self) -> asyncio.Event:
        """Set once the registry knows the agent."""
        return self.link.registered

    def enrolled(self, reply: RegisterReply) -> None:
        """The registry's answer: from now on the host is judged by the GPUs that it names."""
        self.daemon.note(self.daemon.ledger.enroll(reply.agent.expected_gpus))
        log.info("registered", agent=self.agent_id, status=reply.agent.status)
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
    """An agentd for the length of a block. It closes `probe` on the way out, whoever made it.

    Entered when the first check is in the ledger and, where there is a bus, the agent answers on it.
    Raises SettingsError, LedgerInUseError, or HttpPortError.
    """
    agent_id = subjects.check_agent_id(agent_id or settings.agent_id)
    probe = probe or open_probe(settings, agent_id)
    try:
        with _kept_ledger(settings, agent_id, state_dir) as keeper:
            daemon = Daemon(probe, keeper, settings.AGENT_GPU_CHECK_INTERVAL_SECONDS)
            agent = Agent(agent_id, daemon, Link(settings, agent_id, metadata))
            async with _at_work(agent):
                if serve_http:
                    async with http.serving(agent.responder, settings) as agent.http_port:
                        yield agent
                else:
                    yield agent
    finally:
        await probe.close()


@contextmanager
def _kept_ledger(settings: Settings, agent_id: str, state_dir: Path | None) -> Iterator[Keeper]:
    """The ledger, taken up by this process; its last words are written on the way out."""
    keeper = Keeper((state_dir or settings.agent_state_dir) / f"{agent_id}.ledger", settings)
    keeper.open(moment().wall)
    try:
        keeper.resume(secrets.token_hex(8), clock.boot_id(), moment())
        yield keeper
    finally:
        keeper.stop(moment())
        keeper.close()


@asynccontextmanager
async def _at_work(agent: Agent) -> AsyncIterator[None]:
    """Checks, writes and answers in the background; a crash of one ends the block."""
    daemon, link = agent.daemon, agent.link
    async with background() as start:
        for work in (
            daemon.check(),
            daemon.save(),
            link.run(agent.responder.endpoints(), agent.enrolled),
        ):
            start(work)
        await daemon.observed.wait()
        await _patiently(link.serving)
        yield


async def _patiently(serving: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(BUS_PATIENCE_SECONDS):
            await serving.wait()
    except TimeoutError:
        log.warning("no_bus_yet", action="the ledger runs; the agent answers once there is a bus")
