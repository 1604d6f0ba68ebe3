"""The enrolment service: makes tokens, redeems each once, and renews agents' credentials.

It holds the agents' signing key and the key of bootstrap users, and needs no other. Where the
authority's own keys are in the same folder, as in `gpuping up`, it revokes the earlier login of a
host that is enrolled again; elsewhere it says which command does that.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

import structlog
from msgspec.structs import replace
from nats.micro.request import Request
from prometheus_client.core import Metric

from bus.background import background
from bus.client import audit
from bus.clock import boottime
from bus.contract import subjects
from bus.contract.enrolment import (
    KEPT_AFTER_EXPIRY,
    CloseConnections,
    ConnectionsClosed,
    CredentialsReply,
    EnrolmentKept,
    EnrolmentToken,
    HostKeys,
    HostProof,
    IssuedAgent,
    IssuedReply,
    IssuedRequest,
    KeepEnrolment,
    KeptHost,
    KeptToken,
    NewTokenReply,
    NewTokenRequest,
    RedeemRequest,
    RenewRequest,
)
from bus.contract.messages import AgentEntry, decode
from bus.errors import BusError, GpupingError, RefusedError, StaleError
from bus.identity import enrolment_token, host
from bus.identity.authority import USER_DAYS, Authority
from bus.identity.fleet_file import Issued
from bus.identity.keys import InvalidKeyError, KeyKind, SigningKey, check_public_key
from bus.rate_limit import RateLimit
from bus.settings import Settings
from bus.transport import account_updates, bucket, connection, micro_services
from bus.transport.bucket import KeyValue, read
from bus.transport.bus_clock import BusClock
from bus.transport.connection import Client
from bus.transport.inbound_limit import InboundLimit
from bus.transport.micro_services import Endpoint, ask, serve
from gpuping.enrolment.metric_families import Answered, families

log = structlog.get_logger("gpuping.enrolment")

_DAY_SECONDS = 86_400
PURGE_SECONDS = 3600.0
# An agent asks when it connects, and then ten times in the life of its credentials.
RENEWALS_AT_ONCE = 20.0
RENEWALS_PER_SECOND = 1.0
RECORDED_DAYS = 30  # a renewal within so many days of the one before is not noted
AUDIT_SECONDS = 2.0  # less than the host waits for its credentials
PUSH_AGAIN_SECONDS = 10.0
ISSUED_PAGE = 1000  # agents in an answer, which is 250 kB then
UPDATE_AGENTD = "hosts with an earlier agentd may not get in meanwhile: update it there"
SHOWN_HASH = 12  # characters of a token's hash that name it in the audit log


class Enrolment:
    """The answers of the service. Every decision is one compare-and-set of the bucket."""

    def __init__(
        self,
        client: Client,
        host_facing: Client,
        settings: Settings,
        authority: Authority,
    ) -> None:
        """Asks on `client`. Hosts ask on `host_facing`, which has an inbound limit."""
        self._client = client
        self._host_facing = host_facing
        self._settings = settings
        self._authority = authority
        self._answered: Counter[Answered] = Counter()
        self._recorded: dict[str, Issued] = {}  # by login key; read from the authority's file once
        self._renewals = RateLimit(RENEWALS_PER_SECOND, RENEWALS_AT_ONCE)
        self.bus_clock = BusClock(client)
        self._push_failed = asyncio.Event()

    def of_operators(self) -> list[Endpoint]:
        """What operators and gateways may ask; permissions say who."""
        return [
            Endpoint("new", subjects.NEW_ENROLMENT, self._on_new),
            Endpoint("new-host", subjects.NEW_HOST_ENROLMENT, self._on_new_host),
            Endpoint("issued", subjects.ISSUED_CREDENTIALS, self._on_issued),
        ]

    def of_guests(self) -> list[Endpoint]:
        """What whoever has a token may ask."""
        return [
            Endpoint("redeem", subjects.REDEEM_ALL, self._on_redeem),
            Endpoint("redeem-unnamed", subjects.REDEEM, self._on_redeem),
        ]

    def of_agents(self) -> list[Endpoint]:
        """What an agent may ask."""
        return [Endpoint("renew", subjects.RENEW_ALL, self._on_renew)]

    async def new_token(self, request: NewTokenRequest, *, new_only: bool = False) -> NewTokenReply:
        """Makes a token and keeps its hash. Raises UnavailableError when the bucket does not.

        With `new_only` it never takes the place of an agent that exists: RefusedError 409.
        """
        replaces = False
        if request.agent_id is not None:
            if new_only:
                await self._refuse_existing(request.agent_id, code=409)
            replaces = await self._exists(request.agent_id)
        key = SigningKey.generate(KeyKind.USER)
        token_hash = enrolment_token.hash_of(key.seed)
        now = (await self._now()).replace(microsecond=0)
        expires_at = now + timedelta(seconds=request.valid_seconds)
        user_token = self._authority.mint(
            "bootstrap",
            enrolment_token.guest_name(token_hash),
            key.public,
            now=int(now.timestamp()),
            expires_at=int(expires_at.timestamp()),
        )
        kept = EnrolmentToken(expires_at=expires_at, agent_id=request.agent_id, new_only=new_only)
        await self._keep(token=KeptToken(token_hash=token_hash, value=kept, revision=0))
        log.info("enrolment_token_made", agent_id=request.agent_id, expires_at=str(expires_at))
        await audit.record(
            self._client,
            "new-enrolment-token",
            audit.UNNAMED_ACTOR,
            agent_id=request.agent_id,
            after={"expires_at": expires_at, "token": token_hash[:SHOWN_HASH]},
            timeout=AUDIT_SECONDS,
        )
        token = enrolment_token.to_text(key, user_token, self._certificate_authority())
        return NewTokenReply(
            token=token,
            expires_at=expires_at,
            address=public_address(self._settings),
            replaces=replaces,
            voids_earlier=self._authority.can_revoke,
        )

    def _certificate_authority(self) -> str | None:
        """Whom hosts must believe, where the fleet has an authority of its own (NATS_CA).

        A bundle of public authorities does not fit into a token, and hosts have one.
        """
        if self._settings.NATS_CA is None:
            return None
        text = Path(self._settings.NATS_CA).expanduser().read_text(encoding="ascii")
        if len(text) > enrolment_token.MOST_CERTIFICATE_BYTES:
            return None
        return text

    async def redeem(self, request: RedeemRequest) -> CredentialsReply:
        """Lets a host in, once for each token; the same host may repeat its request.

        Raises RefusedError 403 for a token that is unknown, used, expired or for another agent, and
        for keys that are not proven; 409 when another host was quicker.
        """
        token_hash = enrolment_token.hash_of(request.secret)
        _check_proof(request.secret, request.proof)
        token_key = subjects.enrolment_key(token_hash)
        token = await read(self._client, token_key, EnrolmentToken)
        if token is None:
            raise RefusedError(403, "the enrolment token is not known: ask for a new one")
        if token.value.used_by is not None:
            return await self._repeat(request, token.value.used_by, token_hash)
        if token.value.expires_at <= await self._now():
            raise RefusedError(403, "the enrolment token has expired: ask for a new one")
        agent_id = await self._agent_id_of(request, token.value)
        before = await read(self._client, subjects.host_key(agent_id), HostKeys)
        keys = _host_keys(agent_id, request.proof, await self._now(), token_hash)
        used = KeptToken(
            token_hash=token_hash,
            value=replace(token.value, used_by=agent_id),
            revision=token.revision,
        )
        try:
            await self._keep(token=used, host=_kept_host(keys, before))
        except StaleError:
            # It may be the host's own question of before, which had no answer in time.
            recorded = await read(self._client, subjects.host_key(agent_id), HostKeys)
            if recorded is None or not _is_redeemed(recorded.value, request, token_hash):
                raise RefusedError(409, "the enrolment token was used by another host") from None
            return await self._repeat(request, agent_id, token_hash)
        log.info("host_enrolled", agent_id=agent_id, login_key=keys.login_key)
        await self._record_keys(
            "enrol-host", f"enrolment token {token_hash[:SHOWN_HASH]}", keys, before
        )
        await self._revoke_earlier(keys, before)
        return await self._mint(keys)

    async def renew(self, agent_id: str, request: RenewRequest) -> CredentialsReply:
        """New credentials for the keys that are recorded; an agent without any records its own.

        Raises RefusedError 403 for other keys than those of the recorded host.
        """
        _check_proof(agent_id, request.proof)
        before = await read(self._client, subjects.host_key(agent_id), HostKeys)
        keys = _host_keys(agent_id, request.proof, await self._now())
        if before is None or self._may_replace(before.value, keys):
            try:
                await self._keep(host=_kept_host(keys, before))
            except StaleError:
                raise RefusedError(409, f"the keys of {agent_id} were changed meanwhile") from None
            log.info("host_keys_recorded", agent_id=agent_id, signing_key=keys.signing_key)
            await self._record_keys("record-host-keys", f"agent {agent_id}", keys, before)
            return await self._mint(keys)
        recorded = before.value
        is_same = recorded.login_key == keys.login_key and recorded.signing_key == keys.signing_key
        if not is_same:
            raise RefusedError(
                403, f"{agent_id} was enrolled with other keys: enrol this host with a new token"
            )
        return await self._mint(recorded)

    async def _record_keys(
        self,
        action: str,
        actor: str,
        keys: HostKeys,
        before: KeyValue[HostKeys] | None,
    ) -> None:
        """Writes into the audit log which keys a host has from now on."""
        await audit.record(
            self._client,
            action,
            actor,
            agent_id=keys.agent_id,
            before=before.value if before is not None else None,
            after=keys,
            timeout=AUDIT_SECONDS,
        )

    def _may_replace(self, recorded: HostKeys, keys: HostKeys) -> bool:
        """Whether the operator gave this login key credentials by hand, after the recorded one."""
        if recorded.login_key == keys.login_key:
            return False
        newest = None
        for user in self._authority.issued():
            if user.role == "agent" and user.name == keys.agent_id:
                newest = user.public_key
        return newest == keys.login_key

    async def _repeat(
        self,
        request: RedeemRequest,
        agent_id: str,
        token_hash: str,
    ) -> CredentialsReply:
        """Answers again the host that redeemed this token, whose first answer was lost."""
        recorded = await read(self._client, subjects.host_key(agent_id), HostKeys)
        if recorded is not None:
            keys = recorded.value
            if _is_redeemed(keys, request, token_hash):
                # The service may have been killed before it came to that.
                await self._revoke_earlier(keys, None)
                return await self._mint(keys)
        raise RefusedError(403, "the enrolment token was used: ask for a new one")

    async def _agent_id_of(self, request: RedeemRequest, token: EnrolmentToken) -> str:
        """The id that the host gets. A token without one never takes over an id that exists."""
        if token.agent_id is not None:
            if request.agent_id not in {None, token.agent_id}:
                raise RefusedError(403, "the enrolment token is for another agent")
            if token.new_only:
                await self._refuse_existing(token.agent_id)
            return token.agent_id
        agent_id = request.agent_id or request.default_id
        await self._refuse_existing(agent_id)
        return agent_id

    async def _exists(self, agent_id: str) -> bool:
        entry = await read(self._client, subjects.agent_key(agent_id), AgentEntry)
        keys = await read(self._client, subjects.host_key(agent_id), HostKeys)
        return entry is not None or keys is not None

    async def _refuse_existing(self, agent_id: str, *, code: int = 403) -> None:
        if await self._exists(agent_id):
            raise RefusedError(
                code,
                f"agent {agent_id} exists: `gpuping enroll new --id {agent_id}` lets this host "
                "take its place",
            )

    async def purge_spent(self) -> int:
        """Removes tokens that are of no use any more; returns how many there were.

        The server drops them by itself, but those of an earlier version have no time to live, and
        one that was dropped may come back when the server is killed.
        """
        spent = 0
        now = await self._now()
        for key in await bucket.keys(self._client, subjects.enrolment_keys()):
            token = await read(self._client, key, EnrolmentToken)
            if token is None or token.value.expires_at + KEPT_AFTER_EXPIRY > now:
                continue
            token_hash = key.rpartition(".")[2]
            with suppress(StaleError):
                await self._keep(
                    token=KeptToken(token_hash=token_hash, value=None, revision=token.revision)
                )
                spent += 1
        if spent:
            log.info("enrolment_tokens_purged", tokens=spent)
        return spent

    async def _keep(
        self,
        *,
        token: KeptToken | None = None,
        host: KeptHost | None = None,
    ) -> None:
        """Has the scheduler write entries of the bucket, all or none.

        Raises StaleError where one was changed meanwhile, and UnavailableError.
        """
        try:
            await ask(
                self._client,
                subjects.KEEP_ENROLMENT,
                KeepEnrolment(token=token, host=host),
                EnrolmentKept,
                who="the scheduler, which keeps what enrolment decides,",
            )
        except RefusedError as error:
            if error.code == HTTPStatus.CONFLICT:
                raise StaleError(error.detail) from None
            raise

    async def keep_purging(self) -> None:
        """Purges now and then, until cancelled."""
        while True:
            try:
                await self.purge_spent()
            except BusError as error:
                log.warning("enrolment_purge_failed", detail=str(error))
            await asyncio.sleep(PURGE_SECONDS)

    async def stop_floods(self, subjects_of_floods: asyncio.Queue[str]) -> None:
        """Has the connections of hosts closed that ask far more often than any host has to."""
        closed = RateLimit(1.0, 1.0)
        while True:
            subject = await subjects_of_floods.get()
            if closed.take(subject, boottime()):
                continue  # it was asked for within this second
            if subject == subjects.REDEEM:
                log.warning("unnamed_redemptions_flooded", action=UPDATE_AGENTD)
                continue
            name = subject.rpartition(".")[2]
            if subject.startswith(subjects.REDEEM_PREFIX):
                flood = CloseConnections(guest=name)
                action = "it ends when the enrolment token expires"
            else:
                flood = CloseConnections(agent_id=name)
                action = f"look at that host; `gpuping creds revoke {name}` shuts it out"
            try:
                await ask(
                    self._client,
                    subjects.CLOSE_CONNECTIONS,
                    flood,
                    ConnectionsClosed,
                    who="the scheduler, which closes connections,",
                )
            except GpupingError as error:
                log.warning("flood_stop_failed", name=name, detail=str(error), action=action)

    async def _revoke_earlier(
        self,
        keys: HostKeys,
        before: KeyValue[HostKeys] | None,
    ) -> None:
        """Voids every earlier login of a host that was enrolled again."""
        agent_id = keys.agent_id
        earlier = set()
        if before is not None:
            earlier.add(before.value.login_key)
        for user in self._authority.issued():
            if user.role == "agent" and user.name == agent_id:
                earlier.add(user.public_key)
        earlier -= {keys.login_key, *self._authority.fleet.revoked}
        if not earlier:
            return
        if not self._authority.can_revoke:
            log.warning(
                "earlier_login_not_revoked",
                agent_id=agent_id,
                keys=sorted(earlier),
                action="revoke it where the authority's keys are: `gpuping creds revoke KEY`; "
                "the next time `gpuping enroll new --id ID --revoke` there",
            )
            return
        self._authority.revoke(earlier)
        await self._push()

    async def _push(self) -> None:
        """Tells the server of revocations. Where it takes them not now, `keep_pushing` goes on."""
        try:
            await account_updates.push(self._settings, self._authority)
        except BusError as error:
            log.error(
                "account_push_failed",
                detail=str(error),
                action=f"it is tried again every {PUSH_AGAIN_SECONDS:g} s",
            )
            self._push_failed.set()

    async def keep_pushing(self) -> None:
        """Repeats what the server did not take, until cancelled."""
        while True:
            await self._push_failed.wait()
            await asyncio.sleep(PUSH_AGAIN_SECONDS)
            self._push_failed.clear()
            await self._push()

    async def _now(self) -> datetime:
        """The bus server's time: it decides when credentials have expired, and not our clock.

        Before the server has told its time it is ours.
        """
        if self.bus_clock.offset_seconds is None:
            await self.bus_clock.measure()
        return self.bus_clock.now_on_server()

    async def _mint(self, keys: HostKeys) -> CredentialsReply:
        now = int((await self._now()).timestamp())
        expires_at = now + USER_DAYS * _DAY_SECONDS
        user_token = self._authority.mint(
            "agent", keys.agent_id, keys.login_key, now=now, expires_at=expires_at
        )
        self._record(
            Issued(
                role="agent",
                name=keys.agent_id,
                public_key=keys.login_key,
                issued_at=now,
                expires_at=expires_at,
                signed_by=self._authority.signer_of("agent"),
            )
        )
        return CredentialsReply(agent_id=keys.agent_id, user_token=user_token)

    def _record(self, issued: Issued) -> None:
        """Notes who has credentials until when, for `creds list`, alerts and rotations.

        An agent asks whenever it connects, so that a renewal is noted only where it makes a
        difference of a month, or where another key signed it.
        """
        before = self._all_recorded().get(issued.public_key)
        if before is not None:
            is_much_later = issued.expires_at - before.expires_at > RECORDED_DAYS * _DAY_SECONDS
            if before.signed_by == issued.signed_by and not is_much_later:
                return
        self._authority.record(issued)
        self._recorded[issued.public_key] = issued

    def _all_recorded(self) -> dict[str, Issued]:
        if not self._recorded:
            self._recorded = {user.public_key: user for user in self._authority.issued()}
        return self._recorded

    async def _on_issued(self, request: Request) -> IssuedReply:
        skip = decode(request.data or b"{}", IssuedRequest).skip
        agents = [user for user in self._all_recorded().values() if user.role == "agent"]
        page = []
        for user in agents[skip : skip + ISSUED_PAGE]:
            agent = IssuedAgent(
                agent_id=user.name,
                public_key=user.public_key,
                issued_at=user.issued_at,
                expires_at=user.expires_at,
                signed_by=user.signed_by,
            )
            page.append(agent)
        return IssuedReply(agents=tuple(page))

    async def _on_new(self, request: Request) -> NewTokenReply:
        reply = await self.new_token(decode(request.data or b"{}", NewTokenRequest))
        self._answered["token_made"] += 1
        return reply

    async def _on_new_host(self, request: Request) -> NewTokenReply:
        asked = decode(request.data or b"{}", NewTokenRequest)
        reply = await self.new_token(asked, new_only=True)
        self._answered["token_made"] += 1
        return reply

    async def _on_redeem(self, request: Request) -> CredentialsReply:
        reply = await self.redeem(decode(request.data, RedeemRequest))
        self._answered["host_enrolled"] += 1
        return reply

    async def _on_renew(self, request: Request) -> CredentialsReply:
        agent_id = subjects.last_token(request.subject)
        if self._renewals.take(agent_id, boottime()):
            raise RefusedError(429, f"{agent_id} asks too often: at most once a second")
        reply = await self.renew(agent_id, decode(request.data, RenewRequest))
        self._answered["credentials_renewed"] += 1
        return reply

    async def metric_families(self) -> list[Metric]:
        """What this service shows to Prometheus."""
        return families(
            self._answered,
            is_connected=self._client.is_connected,
            refused_replies=self._host_facing.refused_reply_count,
        )


@asynccontextmanager
async def running(settings: Settings, authority: Authority) -> AsyncIterator[Enrolment]:
    """Runs the service for the length of a block, with the credentials that the settings name.

    Who floods it with questions takes the connection on which these come, and no other: an agent
    behind a leaf node, whose connection is not here to be closed, does not keep new hosts out.
    """
    inbox_prefix = subjects.service_inbox("enrolment")
    floods: asyncio.Queue[str] = asyncio.Queue()
    async with (
        connection.connected(settings, "enrolment", inbox_prefix=inbox_prefix) as client,
        connection.connected(
            settings,
            "enrolment-tokens",
            inbox_prefix=inbox_prefix,
            inbound_limit=InboundLimit((subjects.REDEEM,), floods.put_nowait),
        ) as guest_facing,
        connection.connected(
            settings,
            "enrolment-questions",
            inbox_prefix=inbox_prefix,
            inbound_limit=InboundLimit((subjects.RENEW_PREFIX,), floods.put_nowait),
        ) as host_facing,
    ):
        enrolment = Enrolment(client, host_facing, settings, authority)
        elsewhere = [(guest_facing, enrolment.of_guests()), (host_facing, enrolment.of_agents())]
        async with _serving(client, enrolment.of_operators(), elsewhere), background() as start:
            start(enrolment.keep_purging())
            start(enrolment.keep_pushing())
            start(enrolment.bus_clock.run())
            start(enrolment.stop_floods(floods))
            yield enrolment


@asynccontextmanager
async def _serving(
    client: Client,
    endpoints: list[Endpoint],
    elsewhere: list[tuple[Client, list[Endpoint]]],
) -> AsyncIterator[None]:
    """One micro service, as discovery shows it, with endpoints on other connections too."""
    service = await serve(client, subjects.ENROLMENT_SERVICE, "lets GPU hosts in", endpoints)
    added = []
    for other, others_endpoints in elsewhere:
        for endpoint in others_endpoints:
            added.append(await micro_services.add_elsewhere(service, other, endpoint))
        await other.flush()
    try:
        yield
    finally:
        for one in added:
            await micro_services.remove(service, one)
        await micro_services.stop(service)


def public_address(settings: Settings) -> str:
    """HOST:PORT at which a GPU host reaches the bus, as far as the settings say.

    Of a cluster the addresses of all servers, separated by commas: a host that starts while one of
    them is away finds another.
    """
    url = settings.NATS_PUBLIC_URL or settings.nats_url
    return ",".join(_host_and_port(one.strip()) for one in url.split(","))


def _host_and_port(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"", "nats", "tls"}:
        return url  # over websockets
    return parts.netloc.rpartition("@")[2] or url


def _is_redeemed(keys: HostKeys, request: RedeemRequest, token_hash: str) -> bool:
    """Whether these keys were recorded for this very host and token."""
    return keys.token_hash == token_hash and keys.login_key == request.proof.login_key


def _check_proof(context: str, proof: HostProof) -> None:
    """Raises RefusedError 403 unless whoever asks holds both keys."""
    try:
        check_public_key(proof.login_key, KeyKind.USER)
        check_public_key(proof.signing_key, KeyKind.USER)
        proven = host.is_proven(context, proof)
    except InvalidKeyError as error:
        raise RefusedError(400, f"{error}") from None
    if proof.login_key == proof.signing_key:
        raise RefusedError(
            403,
            "the host logs in and signs with one key, and needs two: put its own file "
            "<id>.signing.seed back, or enrol it with a new token",
        )
    if not proven:
        raise RefusedError(403, "the host does not prove that it holds both keys")


def _host_keys(
    agent_id: str,
    proof: HostProof,
    enrolled_at: datetime,
    token_hash: str | None = None,
) -> HostKeys:
    return HostKeys(
        agent_id=agent_id,
        login_key=proof.login_key,
        signing_key=proof.signing_key,
        enrolled_at=enrolled_at,
        token_hash=token_hash,
    )


def _kept_host(keys: HostKeys, before: KeyValue[HostKeys] | None) -> KeptHost:
    """These keys in the place of those that were read."""
    revision = 0 if before is None else before.revision
    return KeptHost(keys=keys, revision=revision)
