"""Messages between a GPU host and the enrolment service, and what that service keeps.

Enrolment here is the exchange of a token for credentials. (`bus.contract.messages.Enrolment` is the
time in which an agent was registered.) The bucket has one entry for each token, and one for the
public keys of each host.
"""

from datetime import datetime, timedelta
from typing import Annotated

from msgspec import Meta, Struct

from bus.contract.messages import AgentId, Message
from bus.contract.subjects import END, RESERVED_IDS

# A host that redeemed a token in its last moment may ask again.
KEPT_AFTER_EXPIRY = timedelta(minutes=10)

PublicKeyText = Annotated[str, Meta(min_length=56, max_length=56)]
SignatureText = Annotated[str, Meta(max_length=100)]  # base64 of 64 bytes
Secret = Annotated[str, Meta(min_length=16, max_length=200)]


def _refuse_reserved(*agent_ids: str | None) -> None:
    """Raises ValueError for an id that no agent can have; decoding then fails."""
    for agent_id in agent_ids:
        if agent_id in RESERVED_IDS:
            raise ValueError(f"agent id {agent_id!r} is reserved: choose another")


# the user of an enrolment token (bus/identity/enrolment_token.py)
GuestName = Annotated[str, Meta(pattern=r"^_[A-Za-z0-9_-]{1,62}" + END)]


class NewTokenRequest(Message, kw_only=True, frozen=True):
    """Asks for a token with which one host may join. Without `agent_id` the host chooses its id."""

    agent_id: AgentId | None = None
    valid_seconds: Annotated[int, Meta(ge=60, le=30 * 86_400)] = 3600

    def __post_init__(self) -> None:
        _refuse_reserved(self.agent_id)


class NewTokenReply(Message, kw_only=True, frozen=True):
    """`token` is a secret, shown once: the service keeps only its hash.

    `address`: where a GPU host reaches the bus, as far as the service knows. `replaces`: the agent
    exists, and whoever redeems the token takes its place. `voids_earlier`: the service then voids
    the earlier credentials of that agent; it cannot where the authority's keys are elsewhere.
    """

    token: str
    expires_at: datetime
    address: str = ""
    replaces: bool = False
    voids_earlier: bool = True


class EnrolmentOffer(Message, kw_only=True, frozen=True):
    """What REST answers: the one line that lets a host in, once, until `expires_at`.

    `only_here`: the bus listens on loopback, so that no other machine reaches it.
    """

    command: str
    expires_at: datetime
    agent_id: AgentId | None = None
    only_here: bool = False


def enrol_command(token: str, address: str) -> str:
    """The one line with which a GPU host joins."""
    return f"gpuping agentd --enroll {token}@{address}"


class HostProof(Struct, kw_only=True, frozen=True):
    """A host's public keys, and the proof that it has both private keys.

    Each proof is the signature (base64) over `signatures.enrolment_proof`. The host logs in with
    one key and signs reports with the other.
    """

    login_key: PublicKeyText
    signing_key: PublicKeyText
    login_proof: SignatureText
    signing_proof: SignatureText


class RedeemRequest(Message, kw_only=True, frozen=True):
    """A host that has a token asks to join.

    `agent_id` is the id that it must have, if any; `default_id` is used where the token names none.
    """

    secret: Secret
    default_id: AgentId
    agent_id: AgentId | None = None
    proof: HostProof

    def __post_init__(self) -> None:
        _refuse_reserved(self.agent_id, self.default_id)


class RenewRequest(Message, kw_only=True, frozen=True):
    """An agent names its keys, and asks for new credentials. The subject pins its id."""

    proof: HostProof


class CredentialsReply(Message, kw_only=True, frozen=True):
    """`user_token`: the JWT of the login key. It is no secret without that key."""

    agent_id: AgentId
    user_token: str


class IssuedRequest(Message, kw_only=True, frozen=True):
    """An operator asks which agents were given credentials, from the `skip`-th on."""

    skip: Annotated[int, Meta(ge=0)] = 0


class IssuedAgent(Struct, kw_only=True, frozen=True):
    """An agent's login key, until when its credentials are good, and which key signed them."""

    agent_id: AgentId
    public_key: PublicKeyText
    issued_at: int  # seconds since 1970
    expires_at: int
    signed_by: str


class IssuedReply(Message, kw_only=True, frozen=True):
    """One page of them, oldest first; empty behind the last."""

    agents: tuple[IssuedAgent, ...]


class EnrolmentToken(Message, kw_only=True, frozen=True):
    """`enrolment.<hash>` in the bucket: a token, known by its hash only.

    `agent_id` is the only agent that it is for, if any; `used_by` the agent that redeemed it.
    `new_only`: it never takes the place of an agent that exists.
    """

    expires_at: datetime
    agent_id: AgentId | None = None
    used_by: AgentId | None = None
    new_only: bool = False


class HostKeys(Message, kw_only=True, frozen=True):
    """`host.<id>` in the bucket: the public keys of an agent's host.

    `token_hash`: of the token that it joined with, so that a repeated request of the same host is
    answered again; None where an operator made its credentials.
    """

    agent_id: AgentId
    login_key: PublicKeyText
    signing_key: PublicKeyText
    enrolled_at: datetime
    token_hash: str | None = None

    def __post_init__(self) -> None:
        _refuse_reserved(self.agent_id)


Revision = Annotated[int, Meta(ge=0)]  # of an entry that is written over; 0: there is none


class KeptToken(Struct, kw_only=True, frozen=True):
    """A token that is to be kept over `revision`; removed where `value` is None."""

    token_hash: Annotated[str, Meta(pattern="^[0-9a-f]{64}" + END)]
    value: EnrolmentToken | None
    revision: Revision


class KeptHost(Struct, kw_only=True, frozen=True):
    """A host's keys that are to be kept over `revision`."""

    keys: HostKeys
    revision: Revision


class KeepEnrolment(Message, kw_only=True, frozen=True):
    """The enrolment service asks the scheduler to keep a token, a host's keys, or both at once.

    Whoever may publish to one key of the bucket may do with it what headers can: empty the bucket
    (`Nats-Rollup: all`), or schedule a message into any other key (`Nats-Schedule-Target`). So the
    scheduler is the only writer of the bucket.
    """

    token: KeptToken | None = None
    host: KeptHost | None = None


class EnrolmentKept(Message, kw_only=True, frozen=True):
    """Both are in the bucket."""


class CloseConnections(Message, kw_only=True, frozen=True):
    """The enrolment service asks the scheduler to end a flood of a host's questions.

    Only schedulers have credentials with which servers close connections. The host may connect
    again; who is to stay away must be revoked. `guest` is the user of an enrolment token, and there
    is no `agent_id` then.
    """

    agent_id: AgentId | None = None
    guest: GuestName | None = None


class ConnectionsClosed(Message, kw_only=True, frozen=True):
    """The servers were asked to close what connections the host had."""
