"""Enrolment tokens: what an operator hands to a new GPU host, as one word.

A new host has no credentials yet. A token is therefore a secret together with the credentials of a
user that may ask the enrolment service to redeem it and do nothing else (role `bootstrap`). The
secret is that user's private key. Once redeemed, or once expired, the token is of no use. Where the
certificate of the bus was signed by an authority of the fleet's own, the token has that as well: it
came from the operator, so that nobody on the way can stand in for the bus.
"""

import base64
import hashlib
import zlib

from msgspec import Struct

from bus.errors import GpupingError
from bus.identity import claims
from bus.identity.claims import InvalidTokenError
from bus.identity.keys import InvalidKeyError, SigningKey

GUEST_PREFIX = "_enrol-"  # of the names of bootstrap users; no agent's id begins like this
MOST_CERTIFICATE_BYTES = 16_384
_PARTS_OF_A_JWT = 3


class InvalidEnrolmentError(GpupingError):
    """A text that is no enrolment token."""


class EnrolmentSecret(Struct, frozen=True):
    """A token, taken apart. `name` is the bootstrap user's.

    certificate_authority: whom to believe (PEM); None: those whom the host believes already.
    """

    key: SigningKey
    user_token: str
    name: str
    certificate_authority: str | None = None

    def __repr__(self) -> str:
        return f"EnrolmentSecret({self.name})"

    @property
    def secret(self) -> str:
        """What the enrolment service compares, by its hash."""
        return self.key.seed


def to_text(
    key: SigningKey,
    user_token: str,
    certificate_authority: str | None = None,
) -> str:
    """The token as one word."""
    text = f"{key.seed}.{user_token}"
    if certificate_authority is None:
        return text
    packed = zlib.compress(certificate_authority.encode("ascii"), level=9)
    return f"{text}.{base64.urlsafe_b64encode(packed).rstrip(b'=').decode()}"


def parse(text: str) -> EnrolmentSecret:
    """Takes a token apart. Raises InvalidEnrolmentError, which never shows it."""
    seed, *parts = text.split(".")
    user_token = ".".join(parts[:_PARTS_OF_A_JWT])
    try:
        key = SigningKey.from_seed(seed)
        user = claims.decode(user_token)
        certificate_authority = _unpacked(parts[_PARTS_OF_A_JWT:])
    except (InvalidKeyError, InvalidTokenError, ValueError, zlib.error):
        raise InvalidEnrolmentError(
            "not an enrolment token: copy the whole word that `gpuping enroll new` printed"
        ) from None
    if user.subject != key.public:
        raise InvalidEnrolmentError("the enrolment token was put together from two")
    return EnrolmentSecret(key, user_token, user.name, certificate_authority)


def guest_name(token_hash: str) -> str:
    """The name of a token's bootstrap user."""
    return f"{GUEST_PREFIX}{token_hash[:12]}"


def hash_of(secret: str) -> str:
    """What is kept of a token: enough to know it again, not enough to use it."""
    return hashlib.sha256(b"gpuping-enrolment:" + secret.encode()).hexdigest()


def _unpacked(parts: list[str]) -> str | None:
    """The certificates in what follows the user's token. Raises ValueError or zlib.error."""
    if not parts:
        return None
    (packed,) = parts
    unpacker = zlib.decompressobj()
    data = base64.urlsafe_b64decode(packed + "=" * (-len(packed) % 4))
    text = unpacker.decompress(data, MOST_CERTIFICATE_BYTES)
    if not unpacker.eof:
        raise ValueError("more certificates than a token may have")
    return text.decode("ascii")
