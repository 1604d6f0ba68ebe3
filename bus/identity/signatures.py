"""Signed reports: what exactly is signed, and how one report is chained to the one before it.

The signing key of a host is not the key it logs in with: a server chooses the nonce that a login
signs, so a rogue one could have had a report signed. Every field is length-prefixed, so that no two
different reports have the same bytes, and each purpose has a domain of its own that begins with a
byte which no text contains.

The format is documented in docs/security.md, so that a verifier can be written in another language.
"""

import hashlib

from msgspec import Struct

REPORT_DOMAIN = b"\xffgpuping-report-v1"
LOOK_DOMAIN = b"\xffgpuping-look-v1"
RECORD_DOMAIN = b"\xffgpuping-record-v1"
ENROLMENT_DOMAIN = b"\xffgpuping-enrolment-v1"
LEDGER_DOMAIN = b"\xffgpuping-ledger-v1"
GENESIS = "genesis"  # `previous` of a host's first report: no report was recorded before it


class SignedContext(Struct, frozen=True, kw_only=True):
    """What a signature covers besides the payload.

    fleet: public key of the fleet's account. key: public key of the host's signing key.
    previous: `record_hash` of the last recorded report, or GENESIS.
    request_hash: SHA-256 of the ping's bytes, as hexadecimal digits.
    ledger, head: the ledger that the report was made from, and the head of its chain of records.
    extends: the head of an earlier report which that chain contains, or a word of `ledger_heads`.
    """

    fleet: str
    agent_id: str
    key: str
    seq: int
    previous: str
    request_hash: str
    ping_id: str
    nonce: str
    boot_id: str
    ledger: str
    head: str
    extends: str


def signed_bytes(
    context: SignedContext,
    payload: bytes,
    domain: bytes = REPORT_DOMAIN,
) -> bytes:
    """Returns the bytes that are signed for a report."""
    return _framed(
        domain,
        context.fleet.encode(),
        context.agent_id.encode(),
        context.key.encode(),
        str(context.seq).encode(),
        context.previous.encode(),
        context.request_hash.encode(),
        context.ping_id.encode(),
        context.nonce.encode(),
        context.boot_id.encode(),
        context.ledger.encode(),
        context.head.encode(),
        context.extends.encode(),
        payload,
    )


def record_hash(signed: bytes, signature: bytes) -> str:
    """Returns what the next report must name as `previous` once this one is recorded."""
    return hashlib.sha256(_framed(RECORD_DOMAIN, signed, signature)).hexdigest()


def request_hash(request: bytes) -> str:
    """Returns the hash of a ping as it was sent."""
    return hashlib.sha256(request).hexdigest()


def ledger_head(head: bytes, record: bytes) -> bytes:
    """Returns the head of a chain of records after one more. A chain begins with 32 zero bytes."""
    return hashlib.sha256(_framed(LEDGER_DOMAIN, head, record)).digest()


def enrolment_proof(
    token: str,
    login_key: str,
    signing_key: str,
) -> bytes:
    """Returns what a host signs with both of its new keys, to prove that it holds them."""
    return _framed(ENROLMENT_DOMAIN, token.encode(), login_key.encode(), signing_key.encode())


def _framed(domain: bytes, *parts: bytes) -> bytes:
    framed = [domain, b"\0"]
    for part in parts:
        framed.append(len(part).to_bytes(4, "big"))
        framed.append(part)
    return b"".join(framed)
