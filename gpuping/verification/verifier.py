"""Takes outcomes one agent after the other, oldest first, and collects what is found."""

from collections.abc import Iterable
from operator import itemgetter
from typing import Any, NamedTuple

from gpuping.verification import signature as signatures
from gpuping.verification.chain import LEDGER_EDITED, RESTORED, LedgerChain, ReportChain
from gpuping.verification.records import Finding, Recorded, Trusted
from gpuping.verification.signature import BadSignatureError
from gpuping.verification.statement import Statement, check_statement
from gpuping.verification.windows import Tiling, check_report, check_row


class AgentSummary(NamedTuple):
    """What was verified of one agent: outcomes, signed reports, and the keys that signed them."""

    agent_id: str
    outcomes: int
    signed: int
    unsigned: int
    first_seq: int
    last_seq: int
    keys: tuple[str, ...]


class _Agent:
    """What is known of one agent from the outcomes that were read."""

    def __init__(self) -> None:
        self.reports = ReportChain()
        self.ledger = LedgerChain()
        self.tiling = Tiling()
        self.outcomes = 0
        self.signed = 0
        self.unsigned = 0
        self.first_seq = 0
        self.last_seq = 0
        self.last_response_ms = 0.0


class Verifier:
    """Give it outcomes; `findings` and `summaries` have the result."""

    def __init__(self, trusted: Trusted) -> None:
        self._trusted = trusted
        self._agents: dict[str, _Agent] = {}
        self._earlier: list[tuple[str, _Agent]] = []  # of statements before
        self.findings: list[Finding] = []
        self.statements = 0

    @property
    def faults(self) -> list[Finding]:
        """What is wrong."""
        return [finding for finding in self.findings if finding.is_fault]

    @property
    def summaries(self) -> list[AgentSummary]:
        """One for each agent, by id."""
        found = []
        everything = [*self._earlier, *self._agents.items()]
        for agent_id, agent in sorted(everything, key=itemgetter(0)):
            summary = AgentSummary(
                agent_id,
                agent.outcomes,
                agent.signed,
                agent.unsigned,
                agent.first_seq,
                agent.last_seq,
                tuple(agent.reports.keys),
            )
            found.append(summary)
        return found

    def add_all(self, outcomes: Iterable[Recorded]) -> None:
        """Verifies outcomes."""
        for one in outcomes:
            self.add(one)

    def end(self) -> None:
        """Says of which agents nothing is signed. It is a fault where the reader gave a key.

        A name may be mistyped, or all the signatures of one agent taken away.
        """
        summaries = self.summaries
        for summary in summaries:
            if summary.unsigned and not summary.signed:
                has_key = summary.agent_id in self._trusted.keys
                text = "none of its reports is signed: nothing is proven of it"
                self._say(summary.agent_id, None, text, is_fault=has_key)
        for agent_id in self._trusted.keys:
            if agent_id not in {summary.agent_id for summary in summaries}:
                self._say(agent_id, None, "a key of it was given, and no ping of it is there")

    def add_statement(self, statement: Statement, outcomes: list[Recorded]) -> None:
        """Verifies a statement and the outcomes that it rests on.

        It stands for itself: the bundle of the next month has some of these outcomes, too.
        """
        self.statements += 1
        agent_id = statement.agent_id
        before = self._agents.pop(agent_id, None)
        if before is not None:
            self._earlier.append((agent_id, before))
        self.add_all(outcomes)
        for text, is_fault in check_statement(statement, outcomes):
            self._say(agent_id, None, f"statement: {text}", is_fault=is_fault)

    def add(self, recorded: Recorded) -> None:
        """Verifies one outcome."""
        agent = self._agents.setdefault(recorded.agent_id, _Agent())
        if not agent.outcomes:
            agent.first_seq = recorded.ping_seq
        agent.outcomes += 1
        agent.last_seq = recorded.ping_seq
        if RESTORED in recorded.remarks:
            agent.reports.restored()
            agent.ledger.restored()
            text = (
                "ours: the bus was restored from a backup. What was recorded after that backup is "
                "lost and not billed; this window goes on from the last ping in it"
            )
            self._say(recorded.agent_id, recorded, text, is_fault=False)
        for text, is_fault in agent.tiling.add(recorded):
            self._say(recorded.agent_id, recorded, text, is_fault=is_fault)
        if recorded.counts:
            self._add_counted(agent, recorded)
        elif recorded.signature and recorded.report is not None:
            self._add_refused(agent, recorded)

    def _add_counted(self, agent: _Agent, recorded: Recorded) -> None:
        report = None
        if recorded.signature and recorded.report is not None:
            report = self._verified(agent, recorded, recorded.report)
        else:
            agent.unsigned += 1
            agent.reports.unsigned()
            if agent.reports.keys:
                self._say(recorded.agent_id, recorded, "it counts, and it is not signed")
        slack_ms = recorded.response_ms + agent.last_response_ms
        agent.last_response_ms = recorded.response_ms
        if not recorded.has_row:
            return
        for text, is_fault in check_row(recorded, report, slack_ms, agent.tiling.gap_ms):
            self._say(recorded.agent_id, recorded, text, is_fault=is_fault)

    def _verified(
        self,
        agent: _Agent,
        recorded: Recorded,
        payload: bytes,
    ) -> dict[str, Any] | None:
        """Checks a signed report and its place; returns it, or None where it cannot be believed."""
        try:
            signature = signatures.parse(recorded.signature)
            report = signatures.read_report(payload)
            record_hash = signatures.verify(signature, report, payload)
        except BadSignatureError as error:
            self._say(recorded.agent_id, recorded, str(error))
            agent.reports.skip()
            agent.ledger.skip()
            return None
        agent.signed += 1
        if report["agent_id"] != recorded.agent_id:
            self._say(recorded.agent_id, recorded, f"it is signed by agent {report['agent_id']}")
        if self._trusted.fleet not in {None, signature.fleet}:
            self._say(recorded.agent_id, recorded, f"it is signed for the fleet {signature.fleet}")
        key = self._trusted.keys.get(recorded.agent_id)
        if key not in {None, signature.key}:
            text = f"it is signed with {signature.key}, not with {key}"
            self._say(recorded.agent_id, recorded, text)
        if signature.seq != recorded.ping_seq:
            self._say(recorded.agent_id, recorded, f"it is signed as ping {signature.seq}")
        wrong_place = agent.reports.add(recorded.ping_seq, signature, record_hash)
        if wrong_place is not None:
            agent.ledger.skip()
            self._say(recorded.agent_id, recorded, wrong_place)
        for text, is_fault in agent.ledger.add(signature):
            self._say(recorded.agent_id, recorded, text, is_fault=is_fault)
        for text in check_report(report):
            self._say(recorded.agent_id, recorded, text)
        return report

    def _add_refused(self, agent: _Agent, recorded: Recorded) -> None:
        """Takes a report that was refused, which proves something only if its signature holds."""
        if LEDGER_EDITED not in recorded.remarks or recorded.report is None:
            return
        try:
            signature = signatures.parse(recorded.signature)
            report = signatures.read_report(recorded.report)
            signatures.verify(signature, report, recorded.report)
        except BadSignatureError as error:
            self._say(recorded.agent_id, recorded, f"refused for its ledger, but {error}")
            agent.ledger.skip()
            return
        agent.ledger.refused(signature)
        text = f"it was refused, for its ledger is {signature.extends}"
        self._say(recorded.agent_id, recorded, text, is_fault=False)

    def _say(
        self,
        agent_id: str,
        recorded: Recorded | None,
        text: str,
        *,
        is_fault: bool = True,
    ) -> None:
        number = None
        at_us = None
        if recorded is not None:
            number = recorded.ping_seq
            at_us = recorded.pinged_us
        self.findings.append(Finding(agent_id, number, at_us, text, is_fault))
