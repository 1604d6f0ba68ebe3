"""The identity of one GPU host: the key that it logs in with and the key that it signs with.

Both are made on the host and never leave it. They stand beside the agent's ledger:
`<id>.creds` (login) and `<id>.signing.seed`.
"""

import base64
from datetime import UTC, datetime
from pathlib import Path

from bus.contract.enrolment import HostProof
from bus.identity import claims, credentials, signatures
from bus.identity.claims import InvalidTokenError
from bus.identity.credentials import CredentialsError
from bus.identity.keys import KeyKind, PublicKey, SigningKey

RENEW_AT_SHARE = 0.5  # of the time for which credentials are good


class HostIdentity:
    """The keys of one agent, and the credentials file that its connection uses."""

    def __init__(self, creds_path: Path, signing_key: SigningKey) -> None:
        """Raises CredentialsError or InvalidTokenError for a file that is no agent's."""
        self.creds_path = creds_path
        self.signing_key = signing_key
        login = credentials.read(creds_path)
        self._login_key = login.key
        user = claims.decode(login.token)
        self.fleet = str(user.nats.get("issuer_account", ""))
        self._issuer = user.issuer
        self._issued_at = user.issued_at
        self._expires_at = user.expires_at

    @classmethod
    def open(
        cls,
        given_creds: Path | None,
        state_dir: Path,
        agent_id: str,
    ) -> "HostIdentity | None":
        """The identity of an agent; None where it has no credentials.

        given_creds: credentials from elsewhere (NATS_CREDS). They are copied into the state dir,
        where they can be renewed, unless those there are newer ones of the same key.
        """
        path = creds_path(state_dir, agent_id)
        _check_whose(given_creds or path, agent_id)
        if given_creds is not None and not _is_newer(path, given_creds):
            given = credentials.read(given_creds)
            credentials.write_secret(path, credentials.to_text(given.token, given.key))
        if not path.exists():
            return None
        return cls(path, signing_key_of(state_dir, agent_id))

    def proof(self, context: str) -> HostProof:
        """Shows that this host holds both keys. `context`: a token's secret, or the agent's id."""
        return make_proof(context, self._login_key, self.signing_key)

    @property
    def expires_at(self) -> datetime | None:
        """When the credentials expire; None for never."""
        if not self._expires_at:
            return None
        return datetime.fromtimestamp(self._expires_at, UTC)

    def is_renewal(self, token: str) -> bool:
        """Whether this token is to take the place of the present one.

        It is good for longer, by half of the time for which it was issued; or another signing key
        made it, because the agents' key is being rotated. Its times, and those of the present one,
        are the service's: a host's own clock may be wrong by any time, and it would let its
        credentials expire.
        """
        user = claims.decode(token)
        if user.issuer != self._issuer:
            return True
        if not self._expires_at or not user.expires_at:
            return False
        lifetime = user.expires_at - user.issued_at
        return user.expires_at - self._expires_at >= lifetime * RENEW_AT_SHARE

    def seconds_to_check(self, longest: float) -> float:
        """How long to wait until the next look at the credentials: a tenth of their lifetime."""
        if not self._expires_at:
            return longest
        return max(1.0, min(longest, (self._expires_at - self._issued_at) / 10))

    def credentials_of(self, token: str) -> str:
        """The text of a credentials file with this token and the login key.

        Raises InvalidTokenError for a token of another key.
        """
        if claims.decode(token).subject != self._login_key.public:
            raise InvalidTokenError("the new credentials are for another key")
        return credentials.to_text(token, self._login_key)

    def replace_token(self, token: str) -> None:
        """Takes new credentials for the same login key; the next connection uses them.

        Raises InvalidTokenError for a token of another key.
        """
        credentials.write_secret(self.creds_path, self.credentials_of(token))
        user = claims.decode(token)
        self._issuer = user.issuer
        self._issued_at = user.issued_at
        self._expires_at = user.expires_at


def fleet_of(creds: str | None) -> str | None:
    """The fleet (public key of its account) that credentials are for; None without credentials."""
    if not creds:
        return None
    user = claims.decode(credentials.read(Path(creds).expanduser()).token)
    fleet = user.nats.get("issuer_account")
    if isinstance(fleet, str):
        return fleet
    return None


def creds_path(state_dir: Path, agent_id: str) -> Path:
    """Where an enrolled host keeps its login."""
    return state_dir / f"{agent_id}.creds"


def signing_key_of(state_dir: Path, agent_id: str) -> SigningKey:
    """The key that signs an agent's reports, made where there is none. Raises CredentialsError."""
    path = state_dir / f"{agent_id}.signing.seed"
    if path.exists():
        return SigningKey.from_seed(credentials.read_secret(path))
    key = SigningKey.generate(KeyKind.USER)
    write_signing_key(state_dir, agent_id, key)
    return key


def write_signing_key(
    state_dir: Path,
    agent_id: str,
    key: SigningKey,
) -> None:
    """Keeps the key that signs an agent's reports."""
    credentials.write_secret(state_dir / f"{agent_id}.signing.seed", key.seed + "\n")


def make_proof(
    context: str,
    login_key: SigningKey,
    signing_key: SigningKey,
) -> HostProof:
    """The public keys, each with a signature that only its private key can make."""
    proven = signatures.enrolment_proof(context, login_key.public, signing_key.public)
    return HostProof(
        login_key=login_key.public,
        signing_key=signing_key.public,
        login_proof=base64.b64encode(login_key.sign(proven)).decode(),
        signing_proof=base64.b64encode(signing_key.sign(proven)).decode(),
    )


def is_proven(context: str, proof: HostProof) -> bool:
    """Whether whoever made the proof holds both keys, and they differ. Raises InvalidKeyError."""
    if proof.login_key == proof.signing_key:
        return False
    proven = signatures.enrolment_proof(context, proof.login_key, proof.signing_key)
    try:
        login_proof = base64.b64decode(proof.login_proof, validate=True)
        signing_proof = base64.b64decode(proof.signing_proof, validate=True)
    except ValueError:
        return False
    return PublicKey(proof.login_key).verifies(proven, login_proof) and PublicKey(
        proof.signing_key
    ).verifies(proven, signing_proof)


def _check_whose(path: Path, agent_id: str) -> None:
    """Raises CredentialsError for credentials of another agent, which could say nothing here."""
    if not path.exists():
        return
    user = claims.decode(credentials.read(path).token)
    if user.name != agent_id:
        raise CredentialsError(
            f"{path}: these are the credentials of {user.name}, and this is agent {agent_id}: "
            f"set AGENT_ID={user.name}, or take those of {agent_id}"
        )


def _is_newer(path: Path, given: Path) -> bool:
    """Whether the credentials at `path` are later ones of the same key. Raises CredentialsError."""
    if not path.exists():
        return False
    kept = credentials.read(path)
    other = credentials.read(given)
    if kept.key.public != other.key.public:
        return False
    return claims.decode(kept.token).issued_at >= claims.decode(other.token).issued_at
