"""Ed25519 keys in the nkeys encoding that NATS uses for operators, accounts and users.

nats-py signs with such keys but cannot make one; what it lacks is here. The encoding is described
in the NATS documentation on NKeys: base32 of a prefix byte, the 32 raw bytes and a CRC-16.
"""

import base64
import binascii
import hashlib
import re
import secrets
from enum import IntEnum

import nacl.exceptions
import nacl.signing
import nkeys

from bus.errors import GpupingError

_SIGNATURE_BYTES = 64
_PUBLIC_BYTES = 35  # the kind, 32 bytes and a checksum: 56 characters of 5 bits
_PUBLIC_PATTERN = re.compile("[A-Z2-7]{56}")
_DIGITS_OF_BASE_32 = str.maketrans(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", "0123456789abcdefghijklmnopqrstuv"
)


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

    def derived_secret(self, purpose: bytes) -> bytes:
        """Returns 32 secret bytes for one purpose, from which the key cannot be computed."""
        return hashlib.sha256(purpose + b"\0" + self._raw).digest()

    def sign(self, data: bytes) -> bytes:
        """Returns the signature, 64 bytes."""
        return self._signer.sign(data).signature


class PublicKey:
    """A key that only verifies. It is made in 3 us, and need not be kept."""

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
    return base64.b32encode(body + _checksum(body)).rstrip(b"=").decode()


def _decode_public(public: str) -> tuple[KeyKind, bytes]:
    """Returns what kind of key it is, and its 32 bytes. Raises InvalidKeyError.

    A scheduler does this for every report. As a number to the base of 32 the text is read in a
    sixth of the time that `base64.b32decode` takes.
    """
    if _PUBLIC_PATTERN.fullmatch(public) is None:
        raise InvalidKeyError("expected a public key of 56 characters")
    data = int(public.translate(_DIGITS_OF_BASE_32), 32).to_bytes(_PUBLIC_BYTES, "big")
    body, checksum = data[:-2], data[-2:]
    if _checksum(body) != checksum:
        raise InvalidKeyError("the public key has a wrong checksum")
    try:
        return KeyKind(body[0]), body[1:]
    except ValueError:
        raise InvalidKeyError("not a public key of an operator, account or user") from None


def _checksum(body: bytes) -> bytes:
    """CRC-16/XMODEM, little-endian. nkeys has the same in Python, which takes 5 us."""
    return binascii.crc_hqx(body, 0).to_bytes(2, "little")
