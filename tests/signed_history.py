"""A host's signed history as a scheduler records it, for tests of what is verified later."""

from datetime import UTC, datetime, timedelta

from msgspec import Raw
from msgspec.structs import replace

from bus.contract.messages import AgentState, PingRequest, Seconds, UptimeReport, decode, encode
from bus.identity.keys import KeyKind, SigningKey
from bus.identity.signed_report import ReportSigner, parse, verify
from storage.engine.rows import Arrival
from tests.storage_states import report, state

FLEET = "A" * 56
KEY = SigningKey.generate(KeyKind.USER)
START = datetime(2026, 10, 30, 12, tzinfo=UTC)
WINDOW = timedelta(hours=3)
LEDGER = "1edce4"


class SignedHost:
    """Answers pings with signed reports; `arrivals` are the messages that storage then reads."""

    def __init__(self, agent_id: str = "a-1", key: SigningKey = KEY, fleet: str = FLEET) -> None:
        self.agent_id = agent_id
        self.key = key
        self.signer = ReportSigner(fleet, key)
        self.previous: str | None = None
        self.number = 0
        self.at = START
        self.since = START
        self.extends = "genesis"
        self.arrivals: list[Arrival] = []

    def signed(self, report: UptimeReport, extends: str | None = None) -> tuple[str, bytes]:
        """The header and the bytes of a report for the present ping."""
        request = PingRequest(
            ping_id=f"p-{self.number}",
            seq=self.number,
            nonce=f"n-{self.number}",
            previous=self.previous,
        )
        window = replace(report.window, mark=f"{LEDGER}.{self.number}")
        made = replace(report, ping_id=request.ping_id, nonce=request.nonce, window=window)
        payload = encode(made)
        head = f"{self.number:064x}"
        header = self.signer.sign(
            request, encode(request), made, payload, head, extends or self.extends
        )
        return header, payload

    def answer(self, seconds: Seconds | None = None, **about: object) -> None:
        """The next ping is answered, three hours after the one before it."""
        self._next_ping()
        length = (self.at - self.since).total_seconds()
        seconds = seconds or Seconds(up=length)
        made = report(self.agent_id, self.at + timedelta(milliseconds=3), seconds)
        header, payload = self.signed(made)
        recorded = self._state(seconds, report=Raw(payload), **about)
        self._add(recorded, header)
        signature = parse(header)
        found = verify(signature, made_of(payload), payload)
        self.previous = found.record_hash
        self.extends = f"{LEDGER}.{signature.head}"
        self.since = self.at

    def miss(self, **about: object) -> None:
        """The next ping is not answered."""
        self._next_ping()
        self._add(self._state(None, **about), None)

    def refused(self, extends: str) -> None:
        """The next ping is answered by a report that is refused for its ledger."""
        self._next_ping()
        seconds = Seconds(up=(self.at - self.since).total_seconds())
        header, payload = self.signed(report(self.agent_id, self.at, seconds), extends)
        about = {"reason": "bad_report", "remarks": ("ledger_edited",)}
        self._add(self._state(None, refused_report=payload.decode(), **about), header)
        self.extends = f"{LEDGER}.{parse(header).head}"

    def _next_ping(self) -> None:
        self.number += 1
        self.at += WINDOW

    def _state(self, seconds: Seconds | None, **about: object) -> AgentState:
        return state(self.agent_id, self.number, self.at, seconds, since=self.since, **about)

    def _add(self, recorded: AgentState, header: str | None) -> None:
        sequence = len(self.arrivals) + 1
        self.arrivals.append(Arrival(sequence, self.agent_id, encode(recorded), header))


def made_of(payload: bytes) -> UptimeReport:
    """The report of these bytes."""
    return decode(payload, UptimeReport)


def month() -> SignedHost:
    """A host whose history crosses the end of October, with everything in it that is allowed."""
    host = SignedHost()
    host.answer(verdict="first", uptime_percent=None)
    for _ in range(3):
        host.answer()
    host.answer(Seconds(up=9_000.0, degraded=300.0, down=1_000.5, unknown=499.5))
    host.miss()
    host.answer()
    host.refused("broken")
    for _ in range(8):
        host.answer()
    return host
