"""Enrolment tokens: what an operator hands to a new GPU host, as one word.

A new host has no credentials yet. A token is therefore a secret together with the credentials of a
user that may ask the enrolment service to redeem it and do nothing else (role `bootstrap`). The
secret is that user's private key. Once redeemed, or once expired, the token is of no use.
"""

import hashlib

from msgspec import Struct

from bus.errors import GpupingError
from bus.identity import claims
from bus.identity.claims import InvalidTokenError
from bus.identity.keys import InvalidKeyError, SigningKey


class InvalidEnrolmentError(GpupingError):
    """A text that is no enrolment token."""


class EnrolmentSecret(Struct, frozen=True):
    """A token, taken apart. `name` is the bootstrap user's."""

    key: SigningKey
    user_token: str
    name: str

    def __repr__(self) -> str:
        return f"EnrolmentSecret({self.name})"

    @property
    def secret(self) -> str:
        """What the enrolment service compares, by its hash."""
        return self.key.seed


def to_text(key: SigningKey, user_token: str) -> str:
    """The token as one word."""
    return f"{key.seed}.{user_token}"


def parse(text: str) -> EnrolmentSecret:
    """Takes a token apart. Raises InvalidEnrolmentError, which never shows it."""
    seed, _, user_token = text.partition(".")
    try:
        key = SigningKey.from_seed(seed)
        user = claims.decode(user_token)
    except (InvalidKeyError, InvalidTokenError):
        raise InvalidEnrolmentError(
            "not an enrolment token: copy the whole word that `gpuping enroll new` printed"
        ) from None
    if user.subject != key.public:
        raise InvalidEnrolmentError("the enrolment token was put together from two")
    return EnrolmentSecret(key, user_token, user.name)


def hash_of(secret: str) -> str:
    """What is kept of a token: enough to know it again, not enough to use it."""
    return hashlib.sha256(b"gpuping-enrolment:" + secret.encode()).hexdigest()
