"""The example in docs/verify.md: what is written there is what both programs compute."""

import hashlib
import json
import re
from pathlib import Path

from bus.contract.messages import PingRequest, UptimeReport, decode
from bus.identity.keys import KeyKind, SigningKey
from bus.identity.signatures import ledger_head
from bus.identity.signed_report import ReportSigner
from gpuping.verification import signature as independent

PAGE = (Path(__file__).parents[2] / "docs/verify.md").read_text()


def block(name: str) -> str:
    found = re.search(rf"^```{name}\n(.*?)\n```$", PAGE, re.MULTILINE | re.DOTALL)
    assert found, name
    return found[1]


def test_the_agent_signs_the_example_as_the_page_says() -> None:
    host = SigningKey(KeyKind.USER, bytes(range(32)))
    account = SigningKey(KeyKind.ACCOUNT, bytes(range(32, 64)))
    head = bytes(32)
    for record in block("records").splitlines():
        head = ledger_head(head, record.encode())
    assert head.hex() == block("head")
    asked, payload = block("ping").encode(), block("report").encode()
    header = ReportSigner(account.public, host).sign(
        decode(asked, PingRequest),
        asked,
        decode(payload, UptimeReport),
        payload,
        head.hex(),
    )
    assert header == block("header")


def test_the_verifier_finds_the_example_as_the_page_says() -> None:
    payload = block("report").encode()
    found = independent.parse(block("header"))
    signed = independent.signed_bytes(found, json.loads(payload), payload)
    assert len(signed) == int(re.search(r"signed bytes are (\d+)", PAGE)[1])  # type: ignore[index]
    assert hashlib.sha256(signed).hexdigest() == block("signed")
    assert signed.hex(" ").startswith("ff 67 70 75 70 69 6e 67")
    assert independent.verify(found, json.loads(payload), payload) == block("previous")
    assert found.request == hashlib.sha256(block("ping").encode()).hexdigest()
