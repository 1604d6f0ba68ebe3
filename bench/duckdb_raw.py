"""The raw limit that ingest is compared with: DuckDB alone reads the same messages with every core.

It checks nothing, looks for no duplicates, numbers no names and stores no times of a GPU. What is
left is to find a row's values in 1,500 bytes of JSON and to commit them. The machine's speed
changes within minutes, the ratio far less.
"""

import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import duckdb

_TABLE = """
create table history (
    agent varchar, ping_seq ubigint, pinged_at timestamptz, outcome varchar, verdict varchar,
    up double, response_ms double, late_ms double, gpus json
)
"""
_READ = """
insert into history
select agent_id, ping_seq, last.pinged_at, last.outcome, last.verdict,
       last.seconds.up, last.response_ms, last.late_ms, last.report.gpus
from read_json($file, format = 'newline_delimited', columns = {
    agent_id: 'VARCHAR', ping_seq: 'UBIGINT', last: 'STRUCT(
        pinged_at TIMESTAMPTZ, outcome VARCHAR, verdict VARCHAR, seconds STRUCT(up DOUBLE),
        response_ms DOUBLE, late_ms DOUBLE, report STRUCT(gpus JSON))'
})
"""


def rows_per_second(messages: Iterable[bytes]) -> float:
    """Measures one statement, from the file of messages to the closed database."""
    with tempfile.TemporaryDirectory() as scratch:
        lines = Path(scratch, "messages.json")
        lines.write_bytes(b"\n".join(messages))
        began = time.perf_counter()
        with duckdb.connect(str(Path(scratch, "raw.duckdb"))) as database:
            database.execute(_TABLE)
            (rows,) = database.execute(_READ, {"file": str(lines)}).fetchone() or (0,)
        return float(rows) / (time.perf_counter() - began)
