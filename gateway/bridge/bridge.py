"""The bridge: finds the agents that are asked by HTTP, hears their pings, and answers for them.

Every gateway with GATEWAY_BRIDGE_NETWORKS does this. They share the pings in one queue group.
"""

import asyncio
import secrets
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

import httpcore
import msgspec
import structlog
from msgspec.structs import replace
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.micro.request import Request
from prometheus_client import CollectorRegistry

from bus.background import background
from bus.client.fleet_client import FleetClient
from bus.clock import boottime, utc_now
from bus.contract import subjects
from bus.contract.messages import PingRequest, decode, encode
from bus.contract.questions import Agent, ListRequest
from bus.errors import BadMessageError, BusError, RefusedError, SettingsError
from bus.networks import AskableNetworks
from bus.settings import Settings
from bus.transport.connection import Client, connected
from bus.transport.micro_services import Endpoint, answering
from gateway.bridge import agent_url, http_asking
from gateway.bridge.agent_url import AgentUrl, AgentUrlError
from gateway.bridge.claims import Claims
from gateway.bridge.http_asking import (
    AddressRefusedError,
    BadHttpAnswerError,
    Resolve,
    UnreachableError,
)
from gateway.bridge.metrics import BridgeMetrics
from gateway.bridge.reports import UncountedAnswers, decode_uptime
from gateway.web.problems import ProblemError, field_problem

log = structlog.get_logger("gateway.bridge")

UPTIME_PATH = "/agent/uptime-since-last-ping"
FIND_SECONDS = 30.0  # between two looks at the registry; a registration here is taken up at once
RECHECK_SECONDS = 300.0  # before an address that was refused is looked at again
RESOLVE_SECONDS = 5.0
# The part of a ping's time-out that is kept for the way back.
ANSWER_SECONDS = 0.25
KEPT_PINGS = 4  # of one agent, whose answers are sent again

_POINTER = "#/agent_url"
_Answering = Callable[[Request], Awaitable[None]]


class Refusal(NamedTuple):
    """Why an agent is not asked by HTTP, for which address, and when that was found."""

    url_text: str
    detail: str
    at: float  # CLOCK_BOOTTIME, seconds


class BridgedAgent:
    """One agent that is asked by HTTP."""

    def __init__(self, agent_id: str, url_text: str, url: AgentUrl) -> None:
        self.agent_id = agent_id
        self.url_text = url_text
        self.url = url
        self.subscriptions: list[Subscription] = []
        self.uncounted = UncountedAnswers()
        self.asking: set[str] = set()  # ping_ids in flight
        self.answers: dict[str, bytes] = {}  # by ping_id, oldest first


class Bridge:
    """Answers for the agents whose address is in the operator's networks."""

    def __init__(
        self,
        client: Client,
        fleet_client: FleetClient,
        networks: AskableNetworks,
        metrics: BridgeMetrics,
        trusted: ssl.SSLContext,
        resolve: Resolve = http_asking.resolve,
    ) -> None:
        """`client` may hear pings and send answers; `fleet_client` asks the scheduler.

        `trusted` accepts the certificates of agents at https addresses.
        """
        self._client = client
        self._fleet_client = fleet_client
        self._networks = networks
        self._metrics = metrics
        self._trusted = trusted
        self._resolve = resolve
        self._instance = secrets.token_hex(6)
        self._answered = 0
        self._agents: dict[str, BridgedAgent] = {}
        self._refused: dict[str, Refusal] = {}  # by agent
        self._changing = asyncio.Lock()
        self._claims = Claims(client, self._instance, self._asked_by_another)

    async def start(self) -> None:
        """Hears what other gateways are at."""
        await self._claims.listen()

    async def run(self) -> None:
        """Keeps to the registry until cancelled."""
        while True:
            try:
                await self._find()
            except BusError as error:
                log.debug("bridge_find_failed", detail=str(error))
            await asyncio.sleep(FIND_SECONDS)

    async def check(self, text: str) -> None:
        """Raises a 400 problem for an agent_url that would not be asked, with the reason.

        Raises a 503 problem where its name cannot be resolved now.
        """
        try:
            await self._checked(text)
        except (AgentUrlError, AddressRefusedError) as error:
            raise field_problem(
                f"agent_url is not asked: {error}; leave it out for an agent on the bus",
                pointer=_POINTER,
            ) from None
        except (UnreachableError, TimeoutError) as error:
            raise ProblemError(503, f"agent_url cannot be checked now: {error}") from None

    async def take(self, agent: Agent) -> Agent:
        """Takes up an agent that was just registered, where it may be asked by HTTP."""
        async with self._changing:
            self._refused.pop(agent.agent_id, None)
            taken = await self._follow(agent)
            self._metrics.show_agents(len(self._agents))
            return taken

    async def _find(self) -> None:
        """Takes up and drops agents, by the registry."""
        found: dict[str, Agent] = {}
        cursor = None
        while True:
            page = await self._fleet_client.agents(ListRequest(has_url=True, cursor=cursor))
            for agent in page.agents:
                found[agent.agent_id] = agent
            cursor = page.next_cursor
            if cursor is None:
                break
        async with self._changing:
            for agent in found.values():
                try:
                    await self._follow(agent)
                except BusError as error:
                    log.warning(
                        "bridge_failed_for_agent", agent_id=agent.agent_id, detail=str(error)
                    )
            for agent_id in set(self._agents) - set(found):
                await self._drop(agent_id)
            self._metrics.show_agents(len(self._agents))

    async def _follow(self, agent: Agent) -> Agent:
        """Asks this agent by HTTP from now on, or no longer. Returns it as it is registered then.

        An agent that answers on the bus itself is left alone. The registry decides about that.
        """
        agent_id = agent.agent_id
        text = agent.agent_url or ""
        known = self._agents.get(agent_id)
        if known is not None and known.url_text == text and agent.by_http:
            return agent
        if not agent.by_http and self._was_refused_lately(agent_id, text):
            return agent
        try:
            url = await self._url_to_ask(agent, text)
            noted = await self._fleet_client.bridge(agent_id, text, by_http=True)
        except RefusedError as error:
            self._note_refused(agent_id, text, error.detail)
            await self._drop(agent_id)
            if agent.by_http:
                return await self._fleet_client.bridge(agent_id, text, by_http=False)
            return agent
        if noted.by_http:
            self._refused.pop(agent_id, None)
            await self._hear(BridgedAgent(agent_id, text, url))
        return noted

    async def _url_to_ask(self, agent: Agent, text: str) -> AgentUrl:
        """Returns the address to ask. Raises RefusedError for one that is not asked.

        Where a name cannot be resolved now, an agent that is asked already stays so: its address is
        checked again at each ping.
        """
        try:
            return await self._checked(text)
        except (AgentUrlError, AddressRefusedError) as error:
            raise RefusedError(400, str(error)) from None
        except (UnreachableError, TimeoutError) as error:
            if agent.by_http:
                return agent_url.parse(text)
            raise RefusedError(503, str(error)) from None

    async def _checked(self, text: str) -> AgentUrl:
        url = agent_url.parse(text)
        async with asyncio.timeout(RESOLVE_SECONDS):
            await http_asking.checked_addresses(url, self._networks, self._resolve)
        return url

    def _was_refused_lately(self, agent_id: str, text: str) -> bool:
        """Spares the resolver: most agents with an agent_url may be on the bus."""
        refusal = self._refused.get(agent_id)
        if refusal is None or refusal.url_text != text:
            return False
        return boottime() - refusal.at < RECHECK_SECONDS

    def _note_refused(self, agent_id: str, text: str, detail: str) -> None:
        """Notes why an agent is not asked by HTTP, and logs it once."""
        before = self._refused.get(agent_id)
        if before is None or before.detail != detail:
            log.info("agent_not_asked_by_http", agent_id=agent_id, detail=detail)
        self._refused[agent_id] = Refusal(text, detail, boottime())

    async def _hear(self, agent: BridgedAgent) -> None:
        """Subscribes for an agent, in the place of what was subscribed for it before."""
        before = self._agents.get(agent.agent_id)
        if before is not None:
            agent.uncounted = before.uncounted
            agent.subscriptions = before.subscriptions
            self._agents[agent.agent_id] = agent
            return
        self._agents[agent.agent_id] = agent
        for endpoint in self._endpoints(agent.agent_id):
            answer = answering(endpoint)

            async def hear(message: Msg, answer: _Answering = answer) -> None:
                await answer(Request(message))

            subscription = await self._client.subscribe(
                endpoint.subject, queue=subjects.BRIDGE_GROUP, cb=hear
            )
            agent.subscriptions.append(subscription)
        await self._client.settle()
        log.info("agent_asked_by_http", agent_id=agent.agent_id, url=agent.url_text)

    async def _drop(self, agent_id: str) -> None:
        agent = self._agents.pop(agent_id, None)
        if agent is None:
            return
        for subscription in agent.subscriptions:
            await subscription.unsubscribe()
        log.info("agent_no_longer_asked_by_http", agent_id=agent_id)

    def _asked_by_another(self, agent_id: str) -> None:
        agent = self._agents.get(agent_id)
        if agent is not None:
            agent.uncounted.forget()

    # ---- what is asked of an agent ----

    def _endpoints(self, agent_id: str) -> list[Endpoint]:
        return [
            Endpoint("ping", subjects.ping(agent_id), self._on_ping),
            Endpoint("look", subjects.look(agent_id), self._on_look),
            Endpoint("gpu-status", subjects.gpu_status(agent_id), self._on_look),
            Endpoint("health", subjects.health(agent_id), self._on_look),
        ]

    async def _on_look(self, request: Request) -> None:
        """Refuses: each question makes such an agent count anew, so only pings may ask it."""
        raise _no_looks(subjects.last_token(request.subject))

    async def _on_ping(self, request: Request) -> bytes | None:
        """Answers a ping; None, which is no answer, where the agent cannot be reached.

        The scheduler then sends the ping again until its time-out, and each time the agent is asked
        again.
        """
        agent_id = subjects.last_token(request.subject)
        asked = decode(request.data.strip() or b"{}", PingRequest)
        if asked.ping_id is None:
            raise _no_looks(agent_id)
        agent = self._agents.get(agent_id)
        if agent is None:
            return None
        start = f"{asked.ping_id} {asked.nonce}"  # a ping that is started anew has another nonce
        if start in agent.answers:
            return agent.answers[start]
        if start in agent.asking or self._claims.is_taken(asked.ping_id):
            return None
        agent.asking.add(start)
        try:
            async with self._claims.held(agent.agent_id, asked.ping_id):
                answer = await self._ask(agent, asked)
        finally:
            agent.asking.discard(start)
        if answer is not None:
            agent.answers[start] = answer
            for oldest in list(agent.answers)[:-KEPT_PINGS]:
                del agent.answers[oldest]
        return answer

    async def _ask(self, agent: BridgedAgent, asked: PingRequest) -> bytes | None:
        seconds = max(ANSWER_SECONDS, (asked.timeout_seconds or 10.0) - ANSWER_SECONDS)
        try:
            data = await http_asking.get(
                agent.url, UPTIME_PATH, self._networks, self._resolve, self._trusted, seconds
            )
            uptime = decode_uptime(data)
        except UnreachableError as error:
            self._metrics.count("unreachable")
            log.info("bridge_request_failed", agent_id=agent.agent_id, detail=str(error))
            return None
        except AddressRefusedError as error:
            self._metrics.count("refused_address")
            log.warning("bridge_address_refused", agent_id=agent.agent_id, detail=str(error))
            return _evidence(agent, f"its address is refused: {error}")
        except (BadHttpAnswerError, BadMessageError) as error:
            self._metrics.count("bad_answer")
            log.warning("bridge_answer_bad", agent_id=agent.agent_id, detail=str(error))
            return _evidence(agent, f"its answer is no report: {error}")
        self._metrics.count("answered")
        self._answered += 1
        mark = f"http-{self._instance}-{self._answered}"
        return encode(agent.uncounted.report(agent.agent_id, asked, uptime, utc_now(), mark))


def _no_looks(agent_id: str) -> RefusedError:
    return RefusedError(
        409,
        f"agent {agent_id} is asked by HTTP, where only a ping that counts may ask: "
        "its last answers are in its history",
    )


def _evidence(agent: BridgedAgent, text: str) -> bytes:
    """What is kept of the miss, instead of a report."""
    return msgspec.json.encode({"asked_by_http": agent.url_text, "error": text})


@asynccontextmanager
async def running(
    settings: Settings,
    fleet_client: FleetClient,
    registry: CollectorRegistry,
    resolve: Resolve = http_asking.resolve,
) -> AsyncIterator[Bridge | None]:
    """Runs the bridge for the length of a block; None where no networks are set.

    Raises SettingsError where the gateway has credentials and the bridge none.
    """
    networks = settings.bridge_networks
    if networks is None:
        yield None
        return
    if settings.NATS_CREDS and not settings.NATS_BRIDGE_CREDS:
        raise SettingsError(
            "NATS_BRIDGE_CREDS: expected the credentials of the role `bridge`, which "
            "GATEWAY_BRIDGE_NETWORKS needs: `gpuping creds service bridge` makes them"
        )
    own = replace(settings, NATS_CREDS=settings.NATS_BRIDGE_CREDS or settings.NATS_CREDS)
    inbox_prefix = subjects.service_inbox("bridge")
    async with (
        connected(own, "bridge", inbox_prefix=inbox_prefix) as client,
        background() as start,
    ):
        bridge = Bridge(
            client,
            fleet_client,
            networks,
            BridgeMetrics(registry),
            httpcore.default_ssl_context(),
            resolve,
        )
        await bridge.start()
        start(bridge.run())
        yield bridge
