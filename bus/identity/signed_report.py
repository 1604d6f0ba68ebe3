"""The signature of one report: how the agent makes it, how it travels, and how it is checked.

It travels in the header `Gpuping-Signature` of the answer, and stays with the outcome in the bucket
and in the history. Together with the report's exact bytes it is all that a verifier needs.
"""

import base64
import binascii

import msgspec
from msgspec import Struct

from bus.contract.messages import PingRequest, UptimeReport
from bus.errors import GpupingError
from bus.identity import ledger_heads, signatures
from bus.identity.keys import InvalidKeyError, PublicKey, SigningKey
from bus.identity.signatures import GENESIS, SignedContext

HEADER = "Gpuping-Signature"
VERSION = 1
_encoder = msgspec.json.Encoder()


class BadSignatureError(GpupingError):
    """A report whose signature does not hold; `reason` is one word for it."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class ReportSignature(Struct, kw_only=True, frozen=True):
    """The header's value, as JSON. The report itself has the other fields that are signed.

    `request` is the SHA-256 of the ping's bytes, `previous` the hash of the report that was
    recorded before, `signature` base64. `ledger`, `head` and `extends`: see `ledger_heads`.
    """

    v: int
    fleet: str
    key: str
    seq: int
    previous: str
    request: str
    ledger: str
    head: str
    extends: str
    signature: str

    def to_header(self) -> str:
        """The value of the header."""
        return _encoder.encode(self).decode()


class Checked(Struct, frozen=True):
    """A signature that holds. `record_hash` is what the next report must name as the previous."""

    signature: ReportSignature
    record_hash: str

    def ledger_remark(self, heads: tuple[str, ...]) -> str | None:
        """What is to be said of the ledger (`ledger_heads.remark`). Raises LedgerEditedError."""
        return ledger_heads.remark(self.signature.ledger, self.signature.extends, heads)

    def ledger_heads_after(self, heads: tuple[str, ...]) -> tuple[str, ...]:
        """The heads to hold once this report is recorded (`ledger_heads.heads_after`)."""
        return ledger_heads.heads_after(self.signature.ledger, self.signature.head, heads)


class Expected(Struct, kw_only=True, frozen=True):
    """What the signature of an answer must name. `fleet` None: any.

    `request` None: any that has the nonce of the report.
    """

    fleet: str | None
    key: str
    seq: int
    previous: str
    request: bytes | None


class ReportSigner:
    """Signs the reports of one agent."""

    def __init__(self, fleet: str, key: SigningKey) -> None:
        self._fleet = fleet
        self._key = key

    def sign(
        self,
        request: PingRequest,
        request_bytes: bytes,
        report: UptimeReport,
        payload: bytes,
        head: str = "",
        extends: str = GENESIS,
    ) -> str:
        """The header's value for this answer to this ping. `payload`: the report's bytes.

        `head` and `extends` say where the ledger's chain is: see `ledger_heads`.
        """
        mark = report.window.mark or ""
        unsigned = ReportSignature(
            v=VERSION,
            fleet=self._fleet,
            key=self._key.public,
            seq=request.seq or 0,
            previous=request.previous or GENESIS,
            request=signatures.request_hash(request_bytes),
            ledger=mark.partition(".")[0],
            head=head,
            extends=extends,
            signature="",
        )
        signed = signatures.signed_bytes(_context(unsigned, report), payload)
        signature = base64.b64encode(self._key.sign(signed)).decode()
        return msgspec.structs.replace(unsigned, signature=signature).to_header()


def parse(header: str) -> ReportSignature:
    """Reads the header. Raises BadSignatureError."""
    try:
        found = msgspec.json.decode(header, type=ReportSignature)
    except (msgspec.DecodeError, UnicodeError):
        raise BadSignatureError("signature_unreadable", "the signature cannot be read") from None
    if found.v != VERSION:
        raise BadSignatureError("signature_unreadable", f"signature version {found.v} is unknown")
    return found


def verify(
    found: ReportSignature,
    report: UptimeReport,
    payload: bytes,
) -> Checked:
    """Checks that the key that the signature names signed exactly this. Raises BadSignatureError.

    Whether that key is the agent's is for the caller to know.
    """
    signed = signatures.signed_bytes(_context(found, report), payload)
    try:
        signature = base64.b64decode(found.signature, validate=True)
        # One text stands for these bytes: the unused bits at its end are zero.
        is_canonical = base64.b64encode(signature).decode() == found.signature
        holds = is_canonical and PublicKey(found.key).verifies(signed, signature)
    except (binascii.Error, ValueError, InvalidKeyError):
        holds = False
    if not holds:
        raise BadSignatureError("signature_wrong", "the signature is wrong")
    return Checked(found, signatures.record_hash(signed, signature))


def check(
    header: str,
    expected: Expected,
    report: UptimeReport,
    payload: bytes,
) -> Checked:
    """Checks an answer against what was asked. Raises BadSignatureError with the reason."""
    found = parse(header)
    if expected.fleet is not None and found.fleet != expected.fleet:
        raise BadSignatureError("fleet_wrong", "it is signed for another fleet")
    if found.key != expected.key:
        raise BadSignatureError("key_wrong", f"it is signed with another key, {found.key}")
    is_of_request = True
    if expected.request is not None:
        is_of_request = found.request == signatures.request_hash(expected.request)
    if found.seq != expected.seq or not is_of_request:
        raise BadSignatureError("request_wrong", "it is signed for another ping")
    if found.previous != expected.previous:
        raise BadSignatureError("previous_wrong", "it does not follow the last recorded report")
    return verify(found, report, payload)


def _context(signature: ReportSignature, report: UptimeReport) -> SignedContext:
    return SignedContext(
        fleet=signature.fleet,
        agent_id=report.agent_id,
        key=signature.key,
        seq=signature.seq,
        previous=signature.previous,
        request_hash=signature.request,
        ping_id=report.ping_id or "",
        nonce=report.nonce or "",
        boot_id=report.boot_id,
        ledger=signature.ledger,
        head=signature.head,
        extends=signature.extends,
    )
