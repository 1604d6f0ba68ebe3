"""Ed25519 keys in the nkeys encoding that NATS uses for operators, accounts and users.

nats-py signs with such keys but cannot make one; what it lacks is here. The encoding is described
in the NATS documentation on NKeys: base32 of a prefix byte, the 32 raw bytes and a CRC-16.
"""

import base64
import binascii
import secrets
from enum import IntEnum

import nacl.exceptions
import nacl.signing
import nkeys

from bus.errors import GpupingError

_SIGNATURE_BYTES = 64
_PUBLIC_CHARACTERS = 56


class InvalidKeyError(GpupingError):
    """A text that is not a key."""


class KeyKind(IntEnum):
    """What a key stands for; the first letter of its public form."""

    OPERATOR = nkeys.PREFIX_BYTE_OPERATOR
    ACCOUNT = nkeys.PREFIX_BYTE_ACCOUNT
    USER = nkeys.PREFIX_BYTE_USER


class SigningKey:
    """A private key. Its seed is a secret; `public` may be shown to anybody."""

    def __init__(self, kind: KeyKind, raw: bytes) -> None:
        self.kind = kind
        self._signer = nacl.signing.SigningKey(raw)
        self._raw = raw
        self.public = _encode_public(kind, bytes(self._signer.verify_key))

    def __repr__(self) -> str:
        return f"SigningKey({self.public})"

    @classmethod
    def generate(cls, kind: KeyKind) -> "SigningKey":
        """A new key from the system's random source."""
        return cls(kind, secrets.token_bytes(32))

    @classmethod
    def from_seed(cls, seed: str) -> "SigningKey":
        """Reads a seed, the text that begins with S.

        Raises InvalidKeyError, which never shows it.
        """
        try:
            prefix, raw = nkeys.decode_seed(seed.strip().encode())
            return cls(KeyKind(prefix), bytes(raw))
        except (nkeys.NkeysError, ValueError, binascii.Error, nacl.exceptions.CryptoError):
            raise InvalidKeyError("not the seed of an nkey") from None

    @property
    def seed(self) -> str:
        """The secret text from which the key can be made again."""
        return str(nkeys.encode_seed(self._raw, int(self.kind)).decode())

    def sign(self, data: bytes) -> bytes:
        """Returns the signature, 64 bytes."""
        return self._signer.sign(data).signature


class PublicKey:
    """A key that only verifies. Made once and kept.

    Decoding costs as much as half a verification.
    """

    def __init__(self, public: str) -> None:
        self.public = public
        self.kind, raw = _decode_public(public)
        self._verifier = nacl.signing.VerifyKey(raw)

    def verifies(self, data: bytes, signature: bytes) -> bool:
        """Returns whether this key signed exactly these bytes."""
        if len(signature) != _SIGNATURE_BYTES:
            return False
        try:
            self._verifier.verify(data, signature)
        except nacl.exceptions.BadSignatureError:
            return False
        return True


def check_public_key(public: str, kind: KeyKind) -> str:
    """Returns the text itself. Raises InvalidKeyError unless it is a public key of that kind."""
    found, _ = _decode_public(public)
    if found is not kind:
        raise InvalidKeyError(f"expected the public key of a {kind.name.lower()}")
    return public


def _encode_public(kind: KeyKind, raw: bytes) -> str:
    body = bytes([kind]) + raw
    checksum = bytes(nkeys.crc16_checksum(bytearray(body)))
    return base64.b32encode(body + checksum).rstrip(b"=").decode()


def _decode_public(public: str) -> tuple[KeyKind, bytes]:
    if len(public) != _PUBLIC_CHARACTERS or not public.isascii():
        raise InvalidKeyError("expected a public key of 56 characters")
    try:
        data = base64.b32decode(public)
        kind = KeyKind(data[0])
    except (binascii.Error, ValueError):
        raise InvalidKeyError("not a public key") from None
    body, checksum = data[:-2], data[-2:]
    if bytes(nkeys.crc16_checksum(bytearray(body))) != checksum:
        raise InvalidKeyError("the public key has a wrong checksum")
    return kind, body[1:]
