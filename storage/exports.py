"""History and statements as files: CSV, Parquet, and a page to print. Written to the scratch folder, then offered."""

import csv
import io
import secrets
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from bus.errors import RefusedError
from bus.statements import Account, ExportRequest, Statement, StatementRequest
from storage import page
from storage.database import sql
from storage.partitions import HOUR_US
from storage.rows import microseconds
from storage.store import Reader

MEDIA_TYPES = {
    "csv": "text/csv; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
    "html": "text/html; charset=utf-8",
}
_ALL = 2**31 - 1  # more than an agent ever has, one outcome a second at most
_FORMATS = {"csv": "FORMAT csv, HEADER", "parquet": "FORMAT parquet, COMPRESSION zstd"}
_STATEMENT_ROW = """
COPY (SELECT unnest(from_json({rows}, '[{
    "agent_id": "VARCHAR", "month": "VARCHAR", "subject": "VARCHAR", "gpu_name": "VARCHAR", "final": "BOOLEAN",
    "enrolled_seconds": "DOUBLE", "up_seconds": "DOUBLE", "degraded_seconds": "DOUBLE", "down_seconds": "DOUBLE",
    "unknown_seconds": "DOUBLE", "excused_seconds": "DOUBLE", "unreported_seconds": "DOUBLE",
    "coverage_percent": "DOUBLE", "uptime_percent": "DOUBLE"
}]'), recursive := true)) TO {file} (FORMAT parquet)
"""


class Written(NamedTuple):
    """A file that is ready, the name to save it under, and what it is."""

    path: Path
    name: str
    media_type: str


def history(reader: Reader, scratch: Path, agent_id: str, request: ExportRequest, now: datetime) -> Written:
    """An agent's outcomes. Raises RefusedError (404) for one without history."""
    agent = reader.known.agents.get(agent_id)
    if agent is None:
        raise RefusedError(404, f"no history of agent {agent_id}")
    since_us = microseconds(now) - int(request.hours * HOUR_US)
    path = _new_file(scratch, request.format)
    text = reader.partitions.fill(sql("export_history"), since_us)
    for mark, value in {
        "{agent}": str(agent),
        "{since_us}": str(since_us),
        "{cursor}": str(_ALL if request.cursor is None else min(request.cursor, _ALL)),
        "{limit}": str(min(request.limit or _ALL, _ALL)),
        "{file}": quoted(str(path)),
        "{format}": _FORMATS[request.format],
    }.items():
        text = text.replace(mark, value)
    reader.cursor.execute(text)
    return Written(path, f"{agent_id}-history.{request.format}", MEDIA_TYPES[request.format])


def statement(reader: Reader, scratch: Path, made: Statement, request: StatementRequest) -> Written:
    """A statement in another form than JSON; sums as rows: the host, then each GPU."""
    path = _new_file(scratch, request.format)
    match request.format:
        case "html":
            path.write_text(page.render(made), encoding="utf-8")
        case "csv":
            path.write_text(_as_csv(_rows(made)), encoding="utf-8")
        case _:
            listed = quoted(msgspec.json.encode(_rows(made)).decode())
            reader.cursor.execute(_STATEMENT_ROW.replace("{file}", quoted(str(path))).replace("{rows}", listed))
    name = f"{made.agent_id}-{made.month}.{request.format}"
    return Written(path, name, MEDIA_TYPES[request.format])


def _rows(made: Statement) -> list[dict[str, Any]]:
    return [
        _row(made, "host", "", made.enrolled_seconds, made.host),
        *(_row(made, gpu.uuid, gpu.name, gpu.enrolled_seconds, gpu) for gpu in made.gpus),
    ]


def _row(made: Statement, subject: str, gpu_name: str, enrolled: float, account: Account) -> dict[str, Any]:
    about = {"agent_id": made.agent_id, "month": made.month, "subject": subject, "gpu_name": gpu_name}
    seconds = {f"{name}_seconds": value for name, value in msgspec.structs.asdict(account.seconds).items()}
    return (
        about
        | {"final": made.final, "enrolled_seconds": enrolled}
        | seconds
        | {
            "unreported_seconds": account.unreported_seconds,
            "coverage_percent": account.coverage_percent,
            "uptime_percent": account.uptime_percent,
        }
    )


def _as_csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _new_file(scratch: Path, suffix: str) -> Path:
    return scratch / f"export-{secrets.token_hex(8)}.{suffix}"


def quoted(text: str) -> str:
    """A literal; COPY takes no parameters."""
    return "'" + text.replace("'", "''") + "'"
