"""JSON web tokens as NATS reads them (NATS JWT version 2).

Each says what an operator, an account or a user may do, and is signed by its issuer.
"""

import base64
import binascii
import hashlib
from typing import Any

import msgspec
from msgspec import Struct

from bus.errors import GpupingError
from bus.identity.keys import InvalidKeyError, PublicKey, SigningKey

_HEADER = {"typ": "JWT", "alg": "ed25519-nkey"}
_VERSION = 2


class InvalidTokenError(GpupingError):
    """A text is not a NATS token, or its issuer did not sign it."""


class Claims(Struct, frozen=True, kw_only=True):
    """A token, decoded and verified. Times are whole seconds since 1970; `expires_at` 0: never."""

    issuer: str = msgspec.field(name="iss")
    subject: str = msgspec.field(name="sub")
    name: str = ""
    issued_at: int = msgspec.field(name="iat", default=0)
    expires_at: int = msgspec.field(name="exp", default=0)
    nats: dict[str, Any] = {}


class _NameOnly(Struct, frozen=True):
    name: str


def encode(
    signer: SigningKey,
    subject: str,
    name: str,
    nats: dict[str, Any],
    *,
    now: int,
    expires_at: int | None = None,
) -> str:
    """Returns a token that `signer` issues for the public key `subject`."""
    claims: dict[str, Any] = {
        "iat": now,
        "iss": signer.public,
        "name": name,
        "sub": subject,
        "nats": nats | {"version": _VERSION},
    }
    if expires_at is not None:
        claims["exp"] = expires_at
    digest = hashlib.new("sha512_256", msgspec.json.encode(claims)).digest()
    claims["jti"] = base64.b32encode(digest).rstrip(b"=").decode()
    header = _to_text(msgspec.json.encode(_HEADER))
    text = f"{header}.{_to_text(msgspec.json.encode(claims))}"
    return f"{text}.{_to_text(signer.sign(text.encode()))}"


def decode(token: str) -> Claims:
    """Reads a token and verifies that the issuer it names has signed it.

    Whether that issuer is trusted, and whether the token has expired, is for the caller to check.
    Raises InvalidTokenError.
    """
    signed, _, signature = token.rpartition(".")
    _, _, body = signed.partition(".")
    try:
        claims = msgspec.json.decode(_from_text(body), type=Claims)
        issuer = PublicKey(claims.issuer)
        is_signed = issuer.verifies(signed.encode(), _from_text(signature))
    except (binascii.Error, ValueError, msgspec.DecodeError, InvalidKeyError):
        raise InvalidTokenError("not a NATS token") from None
    if not is_signed:
        raise InvalidTokenError("the token's signature is wrong")
    return claims


def name_of(token: str) -> str:
    """Returns the name in a token that a server has verified already. Raises InvalidTokenError."""
    parts = token.split(".")
    if len(parts) != 3:
        raise InvalidTokenError("not a NATS token")
    try:
        return msgspec.json.decode(_from_text(parts[1]), type=_NameOnly).name
    except (binascii.Error, ValueError, msgspec.DecodeError):
        raise InvalidTokenError("not a NATS token") from None


def _to_text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _from_text(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
