"""Verifies recorded reports with nothing but public keys: signatures, chains and sums. Pure.

docs/security.md describes the format, so that the same can be done in another language.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from bus.contract.messages import UptimeReport, decode
from bus.errors import BadMessageError
from bus.identity.signatures import GENESIS
from bus.identity.signed_report import BadSignatureError, parse, verify

SUM_TOLERANCE_SECONDS = 0.01


class RecordedReport(NamedTuple):
    """A report as it was kept. `signature` is the header's value, `payload` the exact bytes."""

    ping_seq: int
    signature: str
    payload: bytes


class Trusted(NamedTuple):
    """What the reader knows from elsewhere: the fleet's key, and keys of agents.

    None: any fleet; an agent that is not in `keys`: any key.
    """

    fleet: str | None
    keys: Mapping[str, str] = MappingProxyType({})


class Problem(NamedTuple):
    """What is wrong, and where."""

    agent_id: str
    ping_seq: int
    text: str


class _Chain:
    """The reports of one agent, as far as they were read.

    `head` is the hash of the newest report, `base` that of the one before it. A report that was
    signed and not recorded (a refused one) is followed by another with the same base.
    """

    def __init__(self) -> None:
        self.reports = 0
        self.first_seq = 0
        self.last_seq = 0
        self.keys: list[str] = []
        self.head: str | None = None
        self.base: str | None = None

    def continues_with(self, previous: str) -> bool:
        """Whether a report with this predecessor may come next. The first one read may."""
        return self.head is None or previous in {self.head, self.base}

    def add(
        self,
        ping_seq: int,
        previous: str,
        record_hash: str,
        key: str,
    ) -> None:
        """Takes the next report."""
        if not self.reports:
            self.first_seq = ping_seq
        self.reports += 1
        self.last_seq = ping_seq
        self.base = previous
        self.head = record_hash
        if key not in self.keys:
            self.keys.append(key)


class AgentSummary(NamedTuple):
    """What holds of one agent: its reports, their sequence numbers, and the keys that signed."""

    agent_id: str
    reports: int
    first_seq: int
    last_seq: int
    keys: tuple[str, ...]


class Verification:
    """Takes reports in the order of their pings; `problems` and `summaries` have the result."""

    def __init__(self, trusted: Trusted) -> None:
        self._trusted = trusted
        self._chains: dict[str, _Chain] = {}
        self.problems: list[Problem] = []

    @property
    def summaries(self) -> list[AgentSummary]:
        """One for each agent that signed something, by id."""
        found = []
        for agent_id, chain in sorted(self._chains.items()):
            found.append(
                AgentSummary(
                    agent_id, chain.reports, chain.first_seq, chain.last_seq, tuple(chain.keys)
                )
            )
        return found

    def add_all(self, reports: Iterable[RecordedReport]) -> None:
        """Verifies reports, of one agent or of several."""
        for report in reports:
            self.add(report)

    def add(self, recorded: RecordedReport) -> None:
        """Verifies one report. One without a signature was refused, and proves nothing."""
        if not recorded.signature:
            return
        try:
            report = decode(recorded.payload, UptimeReport)
        except BadMessageError as error:
            self._report("?", recorded, f"it is no report: {error}")
            return
        agent_id = report.agent_id
        try:
            signature = parse(recorded.signature)
            checked = verify(signature, report, recorded.payload)
        except BadSignatureError as error:
            self._report(agent_id, recorded, str(error))
            return
        if self._trusted.fleet not in {None, signature.fleet}:
            self._report(agent_id, recorded, f"it is signed for the fleet {signature.fleet}")
        key = self._trusted.keys.get(agent_id)
        if key not in {None, signature.key}:
            self._report(agent_id, recorded, f"it is signed with {signature.key}, not with {key}")
        if signature.seq != recorded.ping_seq:
            self._report(agent_id, recorded, f"it is signed as ping {signature.seq}")
        self._check_sum(agent_id, recorded, report)
        chain = self._chains.setdefault(agent_id, _Chain())
        begins_anew = signature.previous == GENESIS and signature.key not in chain.keys
        if not begins_anew and not chain.continues_with(signature.previous):
            self._report(
                agent_id,
                recorded,
                f"it does not follow ping {chain.last_seq}: reports are missing or were added",
            )
        chain.add(recorded.ping_seq, signature.previous, checked.record_hash, signature.key)

    def _check_sum(
        self,
        agent_id: str,
        recorded: RecordedReport,
        report: UptimeReport,
    ) -> None:
        seconds = report.seconds
        total = seconds.up + seconds.degraded + seconds.down + seconds.unknown + seconds.excused
        if abs(total - report.window.seconds) > SUM_TOLERANCE_SECONDS:
            text = f"its seconds add up to {total:.3f}, its window has {report.window.seconds:.3f}"
            self._report(agent_id, recorded, text)

    def _report(
        self,
        agent_id: str,
        recorded: RecordedReport,
        text: str,
    ) -> None:
        self.problems.append(Problem(agent_id, recorded.ping_seq, text))
