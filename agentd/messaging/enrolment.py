"""How a GPU host joins a fleet, and keeps its credentials from expiring.

The host makes its own keys. A token that an operator handed out lets it ask once for credentials;
afterwards it renews them over the bus, long before they expire.
"""

import asyncio
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

import msgspec
import nats.errors
import structlog
from msgspec import Struct

from bus.addresses import has_host_and_port
from bus.clock import boottime
from bus.contract import subjects
from bus.contract.enrolment import CredentialsReply, RedeemRequest, RenewRequest
from bus.errors import BusError, GpupingError, RefusedError, SettingsError, UnavailableError
from bus.identity import claims, credentials, enrolment_token, host
from bus.identity.host import HostIdentity
from bus.identity.keys import KeyKind, SigningKey
from bus.redaction import redact_address
from bus.settings import Settings
from bus.transport import connection
from bus.transport.connection import Client, is_private
from bus.transport.micro_services import ask

log = structlog.get_logger("agentd.messaging.enrolment")

CONNECT_SECONDS = 15.0
REQUEST_SECONDS = 5.0
# The server hands a question to one instance of the service. One that is frozen or cut off gets
# its share until the server notices, after 15 s.
REDEEM_SECONDS = 20.0
REDEEM_PAUSE_SECONDS = 0.5
FIRST_RETRY_SECONDS = 1.0
SLOWEST_RETRY_SECONDS = 60.0
# The scheduler keeps the keys. While it is away nobody registers either, so that an agent waits for
# it, and is never pinged with a key that is not known yet.
SCHEDULER_SECONDS = 60.0
SLOWEST_RETRY_FOR_SCHEDULER_SECONDS = 2.0
RENEWAL_CHECK_SECONDS = 6 * 3600.0


OLDER_SERVICE = (
    "the keys in that service's data dir are older than those of the fleet, or its clock is wrong"
)


class EnrolmentError(BusError):
    """The host was not enrolled; the text says why."""


class Enrolled(Struct, kw_only=True, frozen=True):
    """`enrolled.json` in the state dir: which agent this host is, and where its bus is."""

    agent_id: str
    nats_url: str


class _Keys(NamedTuple):
    login: SigningKey
    signing: SigningKey


async def enroll(settings: Settings, token_at_address: str) -> Enrolled:
    """Redeems `TOKEN@HOST:PORT` and keeps the credentials in the state dir.

    Raises InvalidEnrolmentError, SettingsError, or EnrolmentError.
    """
    token_text, separator, address = token_at_address.strip().rpartition("@")
    if not separator:
        raise SettingsError("--enroll: expected TOKEN@HOST:PORT, as `gpuping enroll new` prints it")
    token = enrolment_token.parse(token_text)
    nats_url = url_of(address)
    state_dir = settings.agent_state_dir
    pending = state_dir / f"enrolling-{enrolment_token.hash_of(token.secret)[:12]}.keys"
    keys = _pending_keys(pending)
    request = RedeemRequest(
        secret=token.secret,
        agent_id=settings.AGENT_ID,
        default_id=settings.agent_id,
        proof=host.make_proof(token.secret, keys.login, keys.signing),
    )
    bootstrap = pending.with_suffix(".creds")
    credentials.write_secret(bootstrap, credentials.to_text(token.user_token, token.key))
    authority_file = _authority_file(state_dir)
    if token.certificate_authority is not None:
        credentials.write_secret(authority_file, token.certificate_authority)
        settings = msgspec.structs.replace(settings, NATS_CA=str(authority_file))
    elif settings.NATS_CA is None:
        authority_file.unlink(missing_ok=True)  # of a fleet that this host was in before
    joining = msgspec.structs.replace(
        settings,
        NATS_URL=nats_url,
        NATS_CREDS=str(bootstrap),
        NATS_CONTEXT=None,
    )
    try:
        reply = await _redeem(joining, token.name, request)
    except UnavailableError as error:
        raise EnrolmentError(
            f"{error}. Give the same command again: what this host may have been given is kept"
        ) from None
    except EnrolmentError as error:
        raise EnrolmentError(f"{error}{_expired(token.user_token)}") from None
    finally:
        bootstrap.unlink(missing_ok=True)
    login_file = host.creds_path(state_dir, reply.agent_id)
    login = credentials.to_text(reply.user_token, keys.login)
    refused = await _refusal_of(login, joining, pending)
    if refused is not None:
        raise EnrolmentError(
            f"the bus at {joining.shown_nats_url} does not believe what its enrolment service "
            f"issued ({refused}): {OLDER_SERVICE}. Give the same command again then"
        )
    credentials.write_secret(login_file, login)
    host.write_signing_key(state_dir, reply.agent_id, keys.signing)
    enrolled = Enrolled(agent_id=reply.agent_id, nats_url=nats_url)
    credentials.write_secret(_enrolled_file(state_dir), msgspec.json.encode(enrolled).decode())
    pending.unlink(missing_ok=True)
    log.info("host_enrolled", agent=reply.agent_id, bus=redact_address(nats_url))
    return enrolled


def with_enrolment(settings: Settings) -> Settings:
    """The settings of an enrolled host: its id and bus, where the environment names no other."""
    try:
        data = _enrolled_file(settings.agent_state_dir).read_bytes()
        enrolled = msgspec.json.decode(data, type=Enrolled)
    except (OSError, msgspec.DecodeError):
        return settings
    if settings.AGENT_ID not in {None, enrolled.agent_id}:
        return settings
    settings = msgspec.structs.replace(settings, AGENT_ID=enrolled.agent_id)
    if settings.NATS_CA is None and _authority_file(settings.agent_state_dir).exists():
        certificate_authority = str(_authority_file(settings.agent_state_dir))
        settings = msgspec.structs.replace(settings, NATS_CA=certificate_authority)
    if settings.NATS_URL is None and settings.NATS_CONTEXT is None:
        settings = msgspec.structs.replace(settings, NATS_URL=enrolled.nats_url)
    return settings


def url_of(addresses: str) -> str:
    """The URL of the bus, or those of its servers, separated by commas."""
    return ",".join(_url_of(one.strip()) for one in addresses.split(","))


def _url_of(address: str) -> str:
    """Without a scheme it is TLS, except on loopback."""
    if not has_host_and_port(address):
        raise SettingsError(f"--enroll: expected HOST:PORT after the @, not {address!r}")
    if "://" in address:
        return address
    plain = f"nats://{address}"
    if is_private(plain):
        return plain
    return f"tls://{address}"


class KeyAnnouncement:
    """Names this host's keys to the enrolment service, and renews the credentials in time.

    `first_attempt` is set once the service has answered, or has failed for another reason than that
    no scheduler is there. After a failure it is asked again, and `on_late_success` is called when
    it has answered: the registry did not know the keys before.
    """

    def __init__(
        self,
        client: Client,
        settings: Settings,
        identity: HostIdentity,
        agent_id: str,
        on_late_success: Callable[[], None],
    ) -> None:
        """`settings`: of the client."""
        self.first_attempt = asyncio.Event()
        self._client = client
        self._settings = settings
        self._identity = identity
        self._agent_id = agent_id
        self._on_late_success = on_late_success

    async def run(self) -> None:
        """Asks until the client is closed for good."""
        pause = FIRST_RETRY_SECONDS
        last_error = ""
        began = boottime()
        while not self._client.is_closed:
            try:
                reply = await _renew(self._client, self._identity, self._agent_id)
                await self._take(reply)
            except (GpupingError, OSError) as error:
                if str(error) != last_error:
                    log.warning("keys_not_recorded", agent=self._agent_id, detail=str(error))
                last_error = str(error)
                slowest = SLOWEST_RETRY_SECONDS
                if _waits_for_scheduler(error) and boottime() - began < SCHEDULER_SECONDS:
                    slowest = SLOWEST_RETRY_FOR_SCHEDULER_SECONDS
                else:
                    self.first_attempt.set()
                await asyncio.sleep(random.uniform(pause / 2, pause))  # noqa: S311  # spreads load
                pause = min(pause * 2, slowest)
                continue
            if last_error:
                self._on_late_success()
            self.first_attempt.set()
            last_error = ""
            pause = FIRST_RETRY_SECONDS
            await asyncio.sleep(self._identity.seconds_to_check(RENEWAL_CHECK_SECONDS))

    async def _take(self, reply: CredentialsReply) -> None:
        """Takes new credentials once the bus has let them in; otherwise those here stay.

        An enrolment service whose data dir was put back to an earlier copy signs with a key that
        may be void. It would shut out every host.
        """
        if not self._identity.is_renewal(reply.user_token):
            return
        login = self._identity.credentials_of(reply.user_token)
        refused = await _refusal_of(login, self._settings, self._identity.creds_path)
        if refused is not None:
            log.warning(
                "new_credentials_refused",
                agent=self._agent_id,
                detail=refused,
                action=f"these stay; {OLDER_SERVICE}",
            )
            return
        self._identity.replace_token(reply.user_token)
        log.info("credentials_renewed", agent=self._agent_id)


def _waits_for_scheduler(error: Exception) -> bool:
    """Whether the service is there, and cannot keep the keys yet."""
    return isinstance(error, RefusedError) and error.code == HTTPStatus.SERVICE_UNAVAILABLE


async def _renew(
    client: Client,
    identity: HostIdentity,
    agent_id: str,
) -> CredentialsReply:
    return await ask(
        client,
        subjects.renew(agent_id),
        RenewRequest(proof=identity.proof(agent_id)),
        CredentialsReply,
        who="the enrolment service",
        timeout=REQUEST_SECONDS,
    )


async def _redeem(
    settings: Settings,
    name: str,
    request: RedeemRequest,
) -> CredentialsReply:
    inbox_prefix = f"{subjects.service_inbox('enrol')}.{name}"
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            client = await connection.connect(settings, name, inbox_prefix=inbox_prefix)
    except (TimeoutError, OSError, nats.errors.Error):
        await _refuse_certificate(settings)
        raise EnrolmentError(
            f"no bus at {settings.shown_nats_url} let this host in: "
            "is the address right, and is the token still good?"
        ) from None
    try:
        return await _ask_until_answered(client, name, request)
    finally:
        await client.farewell()


async def _ask_until_answered(
    client: Client,
    name: str,
    request: RedeemRequest,
) -> CredentialsReply:
    """Repeats the question for REDEEM_SECONDS: the same host may ask again.

    An earlier version of the enrolment service, or of the permissions, has one subject for all
    hosts, so that both subjects are asked in turn.

    Raises RefusedError, and UnavailableError when nobody has answered.
    """
    began = boottime()
    for subject in cycle((subjects.redeem(name), subjects.REDEEM)):
        try:
            return await ask(
                client,
                subject,
                request,
                CredentialsReply,
                who="the enrolment service",
                timeout=REQUEST_SECONDS,
            )
        except UnavailableError:
            if boottime() - began > REDEEM_SECONDS:
                raise
        await asyncio.sleep(REDEEM_PAUSE_SECONDS)
    raise AssertionError  # `cycle` never ends


async def _refusal_of(login: str, settings: Settings, beside: Path) -> str | None:
    """The server's words where it refuses the credentials in this text; None otherwise.

    They are tried from a file `beside` another.
    """
    trial = beside.with_name(f"{beside.name}.trial")
    credentials.write_secret(trial, login)
    try:
        tried = msgspec.structs.replace(settings, NATS_CREDS=str(trial))
        return await connection.refusal(tried)
    finally:
        trial.unlink(missing_ok=True)


def _expired(user_token: str) -> str:
    """What a refusal says besides where the token has expired; nothing where it has not."""
    expires_at = claims.decode(user_token).expires_at
    if not expires_at or expires_at > time.time():
        return ""
    moment = datetime.fromtimestamp(expires_at, UTC)
    return (
        f" It expired at {moment:%Y-%m-%d %H:%M:%S} UTC, by this host's clock: ask for a new one "
        "(`gpuping enroll new`)"
    )


async def _refuse_certificate(settings: Settings) -> None:
    """Raises EnrolmentError where the bus is there and its certificate is not believed."""
    try:
        await connection.refusal(settings)
    except BusError as error:
        raise EnrolmentError(str(error)) from None


def _pending_keys(path: Path) -> _Keys:
    """The keys of an enrolment that has begun: a repeated one must come with the same keys."""
    if path.exists():
        login_seed, signing_seed = credentials.read_secret(path).split()
        return _Keys(SigningKey.from_seed(login_seed), SigningKey.from_seed(signing_seed))
    keys = _Keys(SigningKey.generate(KeyKind.USER), SigningKey.generate(KeyKind.USER))
    credentials.write_secret(path, f"{keys.login.seed}\n{keys.signing.seed}\n")
    return keys


def _enrolled_file(state_dir: Path) -> Path:
    return state_dir / "enrolled.json"


def _authority_file(state_dir: Path) -> Path:
    """Who signed the certificate of the bus, as the enrolment token said."""
    return state_dir / "bus-ca.pem"
