"""Links for people who do not sign in: a secret in the address, which only this fleet can make.

The secret holds what it is for, encrypted and authenticated under one key (XSalsa20 and Poly1305,
as NaCl's secretbox). Whoever has the address learns neither an agent's id nor how to make another
address. The key is kept in the bucket, so that every gateway of the fleet accepts the same links.
"""

import base64
import binascii
from datetime import UTC, datetime

import msgspec
import nacl.exceptions
import nacl.secret
import nacl.utils
from msgspec import Struct

from bus.contract.publishing import LinkKind

MAX_SECRET_LENGTH = 600


class LinkContent(Struct, kw_only=True, frozen=True, array_like=True):
    """What a link is for. Times are in milliseconds since 1970; `expires_at` is 0 for never."""

    kind: LinkKind
    agent_id: str
    made_at: int
    expires_at: int = 0
    shown_name: str | None = None


_decoder = msgspec.msgpack.Decoder(LinkContent)


def new_key() -> str:
    """A new key, in base64."""
    return base64.b64encode(nacl.utils.random(nacl.secret.SecretBox.KEY_SIZE)).decode()


def seal(key: str, content: LinkContent) -> str:
    """The secret of a link: letters, digits, `-` and `_`."""
    sealed = _box(key).encrypt(msgspec.msgpack.encode(content))
    return _as_text(bytes(sealed))


def unseal(
    key: str,
    secret: str,
    kind: LinkKind,
    now: datetime,
) -> LinkContent | None:
    """What a link is for; None for one of another kind or key, changed, or expired."""
    if len(secret) > MAX_SECRET_LENGTH:
        return None
    try:
        sealed = base64.b64decode(secret + "=" * (-len(secret) % 4), altchars=b"-_", validate=True)
        if _as_text(sealed) != secret:  # the last character has bits that decoding ignores
            return None
        content = _decoder.decode(_box(key).decrypt(sealed))
    except (binascii.Error, ValueError, nacl.exceptions.CryptoError, msgspec.DecodeError):
        return None
    is_over = content.expires_at != 0 and content.expires_at <= now.timestamp() * 1000
    if content.kind != kind or is_over:
        return None
    return content


def _as_text(sealed: bytes) -> str:
    return base64.urlsafe_b64encode(sealed).decode().rstrip("=")


def expiry(content: LinkContent) -> datetime | None:
    """When a link expires; None for one that does not."""
    if content.expires_at == 0:
        return None
    return datetime.fromtimestamp(content.expires_at / 1000, UTC)


def _box(key: str) -> nacl.secret.SecretBox:
    return nacl.secret.SecretBox(base64.b64decode(key))
