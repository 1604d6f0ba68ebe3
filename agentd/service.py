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
from msgspec.structs import replace

from agentd import http
from agentd.check_loop import CheckLoop, read_clocks
from agentd.ledger import windows
from agentd.ledger.chain import SealKey
from agentd.ledger.store import LedgerStore
from agentd.messaging.connection import BusSession
from agentd.messaging.responder import Responder
from agentd.probe_selection import open_probe
from agentd.samples import Probe
from bus import clock
from bus.background import background, wait_at_most
from bus.contract import subjects
from bus.contract.questions import RegisterReply, RegisterRequest
from bus.identity import signatures
from bus.identity.host import HostIdentity
from bus.identity.signed_report import ReportSigner
from bus.private_files import private_folder
from bus.settings import Settings

log = structlog.get_logger("agentd")

# How long entering waits for the first look at the GPUs. Without it the agent answers that it is
# starting, and registers when it has looked.
FIRST_LOOK_SECONDS = 10.0
# How long entering waits for the bus. Without a bus the agent runs all the same.
BUS_WAIT_SECONDS = 2.0


class Agent:
    """A running agentd."""

    def __init__(
        self,
        agent_id: str,
        check_loop: CheckLoop,
        bus_session: BusSession,
        identity: HostIdentity | None = None,
    ) -> None:
        self.agent_id = agent_id
        self.check_loop = check_loop
        self.bus_session = bus_session
        signer = None
        if identity is not None and identity.fleet:
            signer = ReportSigner(identity.fleet, identity.signing_key)
        self.responder = Responder(agent_id, check_loop, bus_session.health, signer)
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

    The block begins when the first look at the GPUs has ended and, where there is a bus, the agent
    answers on it; it waits FIRST_LOOK_SECONDS and BUS_WAIT_SECONDS at most. Raises SettingsError,
    LedgerInUseError, or PortError.
    """
    agent_id = subjects.check_agent_id(agent_id or settings.agent_id)
    if serve_http:
        http.check_protected(settings)
    state_dir = state_dir or settings.agent_state_dir
    private_folder(state_dir, "AGENT_STATE_DIR")
    probe = probe or open_probe(settings, agent_id)
    if probe.simulated:
        metadata = (metadata or {}) | {"simulated": True}
    ledger_file = state_dir / f"{agent_id}.ledger"
    identity = _identity_of(settings, state_dir, agent_id)
    if identity is not None:
        settings = replace(settings, NATS_CREDS=str(identity.creds_path))
    try:
        with _opened_ledger(settings, ledger_file, identity) as store:
            check_loop = CheckLoop(probe, store, settings.AGENT_GPU_CHECK_INTERVAL_SECONDS)
            bus_session = BusSession(
                settings,
                agent_id,
                may_register=check_loop.first_look_ended,
                registration=lambda: _registration(store, metadata),
                identity=identity,
            )
            agent = Agent(agent_id, check_loop, bus_session, identity)
            async with _in_background(agent):
                if serve_http:
                    async with http.serving(agent.responder, settings) as agent.http_port:
                        yield agent
                else:
                    yield agent
    finally:
        await probe.close()


def _identity_of(
    settings: Settings,
    state_dir: Path,
    agent_id: str,
) -> HostIdentity | None:
    """The keys of this host; None on a bus without identities. Raises CredentialsError."""
    given = None
    if settings.NATS_CREDS:
        given = Path(settings.NATS_CREDS).expanduser()
    return HostIdentity.open(given, state_dir, agent_id)


def _registration(
    store: LedgerStore,
    metadata: dict[str, Any] | None,
) -> RegisterRequest:
    """The agent's own registration, with the ledger's present position."""
    position = store.ledger.position(read_clocks())
    return RegisterRequest(metadata=metadata, mark=windows.mark(store.ledger, position))


@contextmanager
def _opened_ledger(
    settings: Settings,
    path: Path,
    identity: HostIdentity | None,
) -> Iterator[LedgerStore]:
    """The ledger, taken over by this process. Its last records are written when the block ends."""
    seal_key = None
    if identity is not None:
        key = identity.signing_key
        seal_key = SealKey(key.public, key.derived_secret(signatures.LEDGER_DOMAIN))
    store = LedgerStore(path, settings, seal_key)
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
        await wait_at_most(check_loop.first_look_ended, FIRST_LOOK_SECONDS)
        if not await wait_at_most(bus_session.serving, BUS_WAIT_SECONDS):
            log.warning(
                "bus_connect_timed_out",
                action="the ledger runs; the agent answers once there is a bus",
            )
        yield
