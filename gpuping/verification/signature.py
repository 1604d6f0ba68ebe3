"""The signature of one report: which bytes were signed, and whether that key signed them.

docs/verify.md describes the bytes, with an example that a test computes again.
"""

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import Any

import nacl.exceptions
import nacl.signing

from gpuping.verification.fields import parse as parse_json

REPORT_DOMAIN = b"\xffgpuping-report-v1\x00"
RECORD_DOMAIN = b"\xffgpuping-record-v1\x00"
VERSION = 1
_SIGNATURE_BYTES = 64
_KEY_BYTES = 35  # a prefix byte, the key's 32 bytes, and a CRC-16


class BadSignatureError(Exception):
    """A signature that cannot be read or does not hold."""


@dataclass(frozen=True)
class Signature:
    """The header `Gpuping-Signature`."""

    fleet: str
    key: str
    seq: int
    previous: str
    request: str
    ledger: str
    head: str
    extends: str
    signature: bytes


def parse(header: str) -> Signature:
    """Reads the header. Raises BadSignatureError."""
    try:
        fields = parse_json(header.encode())
        if fields["v"] != VERSION:
            raise BadSignatureError(f"its signature has the unknown version {fields['v']}")
        return Signature(
            fleet=_text(fields["fleet"]),
            key=_text(fields["key"]),
            seq=_number(fields["seq"]),
            previous=_text(fields["previous"]),
            request=_text(fields["request"]),
            ledger=_text(fields["ledger"]),
            head=_text(fields["head"]),
            extends=_text(fields["extends"]),
            signature=_from_base64(_text(fields["signature"])),
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        raise BadSignatureError("its signature cannot be read") from None


def read_report(payload: bytes) -> dict[str, Any]:
    """Returns the fields of a report. Raises BadSignatureError."""
    try:
        fields = parse_json(payload)
    except (ValueError, RecursionError):
        raise BadSignatureError("it is no report") from None
    if not isinstance(fields, dict) or not isinstance(fields.get("agent_id"), str):
        raise BadSignatureError("it is no report")
    return fields


def signed_bytes(
    signature: Signature,
    report: dict[str, Any],
    payload: bytes,
) -> bytes:
    """Returns the bytes that the host signed. Four fields are those of the report itself."""
    texts = (
        signature.fleet,
        _text(report["agent_id"]),
        signature.key,
        str(signature.seq),
        signature.previous,
        signature.request,
        _text(report.get("ping_id") or ""),
        _text(report.get("nonce") or ""),
        _text(report.get("boot_id") or ""),
        signature.ledger,
        signature.head,
        signature.extends,
    )
    return framed(REPORT_DOMAIN, *(text.encode() for text in texts), payload)


def record_hash(signed: bytes, signature: bytes) -> str:
    """Returns what the next report names as `previous` once this one is recorded."""
    return hashlib.sha256(framed(RECORD_DOMAIN, signed, signature)).hexdigest()


def framed(domain: bytes, *parts: bytes) -> bytes:
    """Returns the domain and each part behind its length in 4 bytes, big-endian."""
    return domain + b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def verify(
    signature: Signature,
    report: dict[str, Any],
    payload: bytes,
) -> str:
    """Returns the record hash of a report. Raises BadSignatureError where the key did not sign."""
    try:
        signed = signed_bytes(signature, report, payload)
        key = nacl.signing.VerifyKey(raw_key(signature.key))
        if len(signature.signature) != _SIGNATURE_BYTES:
            raise BadSignatureError("the signature is wrong")
        key.verify(signed, signature.signature)
    except (nacl.exceptions.CryptoError, TypeError, UnicodeError):
        raise BadSignatureError("the signature is wrong") from None
    return record_hash(signed, signature.signature)


def raw_key(public: str) -> bytes:
    """Returns the 32 bytes of a public key. Raises BadSignatureError.

    The text is base32 without padding: a byte for the kind of key, 32 bytes, and a CRC-16 (XMODEM,
    little-endian).
    """
    try:
        data = base64.b32decode(public + "=" * (-len(public) % 8))
    except (binascii.Error, ValueError):
        data = b""
    if len(data) != _KEY_BYTES or binascii.crc_hqx(data[:-2], 0) != int.from_bytes(
        data[-2:], "little"
    ):
        raise BadSignatureError("its key cannot be read")
    return data[1:-2]


def _from_base64(text: str) -> bytes:
    """Returns the bytes. Only one text stands for them: unused bits at its end are zero."""
    data = base64.b64decode(text, validate=True)
    if base64.b64encode(data).decode() != text:
        raise ValueError
    return data


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value
