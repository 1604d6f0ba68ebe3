"""A statement with everything that it rests on, for `gpuping verify` (docs/verify.md)."""

from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from bus.contract.durations import Durations
from bus.contract.messages import encode
from bus.contract.statements import StatementRequest
from storage.engine.database import rows_as, sql
from storage.engine.duration_columns import reported_durations
from storage.engine.rows import microseconds
from storage.statements.build import read_month, statement_of
from storage.statements.outcomes import AgentOutcomes, OutcomeRow
from storage.store.store import Reader

FORMAT = "gpuping-statement-bundle"
VERSION = 1


class _Report(NamedTuple):
    """A row of `bundle_reports.sql`."""

    ping_seq: int
    pinged_us: int
    payload: str
    signature: str


def bundle(
    reader: Reader,
    agent_id: str,
    request: StatementRequest,
    now: datetime,
    threshold: float,
) -> str:
    """Returns the bundle as JSON. Raises like `build.statement`."""
    month = read_month(reader, agent_id, request, microseconds(now))
    made = statement_of(reader, month, agent_id, request, now, threshold)
    outcomes = month.outcomes
    reports = _reports(reader, agent_id, outcomes)
    document = {
        "format": FORMAT,
        "version": VERSION,
        "agent_id": agent_id,
        "month": request.month,
        "statement": _with_enrolled(msgspec.json.decode(encode(made))),
        "outcomes": [
            _outcome(row, outcomes, reports.get((row.ping_seq, row.pinged_us)))
            for row in outcomes.rows
        ],
    }
    return msgspec.json.encode(document).decode() + "\n"


def _reports(
    reader: Reader,
    agent_id: str,
    outcomes: AgentOutcomes,
) -> dict[tuple[int, int], _Report]:
    agent = reader.names.agents.find(agent_id)
    if agent is None or not outcomes.rows:
        return {}
    since_us = outcomes.rows[0].pinged_us
    until_us = outcomes.rows[-1].pinged_us + 1
    text = reader.partitions.fill(sql("bundle_reports"), since_us, until_us)
    asked = {"agent": agent, "since_us": since_us, "until_us": until_us}
    rows = rows_as(_Report, reader.cursor, text, asked)
    return {(row.ping_seq, row.pinged_us): row for row in rows}


def _with_enrolled(statement: dict[str, Any]) -> dict[str, Any]:
    """A statement names its enrolled intervals only where there are several; here always."""
    if not statement["enrolled"] and statement["enrolled_seconds"] > 0:
        statement["enrolled"] = [[statement["since"], statement["until"]]]
    return statement


def _outcome(
    row: OutcomeRow,
    outcomes: AgentOutcomes,
    report: _Report | None,
) -> dict[str, Any]:
    window = outcomes.windows.get(row.key())
    gpus = {}
    if window is not None:
        gpus = {uuid: _times(durations) for uuid, durations in window.gpus.items()}
    durations = reported_durations(row)
    return {
        "ping_seq": row.ping_seq,
        "pinged_us": row.pinged_us,
        "since_us": row.measured_since_us,
        "outcome": row.outcome,
        "verdict": row.verdict,
        "uptime_percent": row.uptime_percent,
        "response_us": row.response_us,
        "times_ms": None if durations is None else _times(durations),
        "gpus_ms": gpus,
        "remarks": [] if row.remarks is None else msgspec.json.decode(row.remarks),
        "report": None if report is None else report.payload,
        "signature": None if report is None else report.signature or None,
    }


def _times(durations: Durations) -> list[int]:
    return [
        durations.up,
        durations.degraded,
        durations.down,
        durations.unknown,
        durations.excused,
    ]
