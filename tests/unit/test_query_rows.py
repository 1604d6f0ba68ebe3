"""Rows of queries have names, and the names are those of the query's columns, in their order."""

from pathlib import Path
from typing import Any

import pytest

from bus.settings import Settings
from storage.answers import changes, history, latencies, pings, series, troubles
from storage.engine import database
from storage.engine.partitions import Partitions
from storage.statements import outcomes, replay
from storage.store import gpu_rows

LISTS = {"times_us": "[1]", "agents": "[1]", "agent_ids": '["a"]'}
ROWS = {
    "changed_pings": pings.HistoryRow,
    "changes": changes._ChangeRow,
    "series": series._BucketRow,
    "gpu_sets_of_pings": troubles._SetRow,
    "gpus_of_pings": gpu_rows.GpuRow,
    "history_page": pings.HistoryRow,
    "history_summary": history._SummaryRow,
    "latencies": latencies._ExactRow,
    "latency_buckets": latencies._BucketRow,
    "overview": history._OverviewRow,
    "recent_pings": pings.HistoryRow,
    "recent_since": history._RecentRow,
    "replay_windows": replay._WindowsRow,
    "statement_incidents": outcomes._IncidentRow,
    "statement_windows": outcomes.OutcomeRow,
    "troubles": troubles._TroubleRow,
    "uptimes": history._UptimeRow,
}


@pytest.fixture(scope="module")
def cursor(tmp_path_factory: pytest.TempPathFactory):
    settings = Settings(GPUPING_DATA_DIR=str(tmp_path_factory.mktemp("data")))
    connection = database.open_file(settings, database.HistoryPaths(settings))
    yield database.reading_cursor(connection)
    connection.close()


@pytest.mark.parametrize("name", ROWS)
def test_the_fields_of_a_row_are_the_columns_of_its_query(cursor: database.Connection, name: str):
    text = Partitions(Path("nowhere"), {}).fill(database.sql(name))
    text = text.replace("{now}", "0").replace("{then}", "0").replace("{chosen}", "true")
    (statement,) = cursor.extract_statements(text)
    asked: dict[str, Any] = {key: LISTS.get(key, 1) for key in statement.named_parameters}
    columns = [column[0] for column in cursor.execute(text, asked).description]
    row: Any = ROWS[name]
    assert tuple(columns) == row._fields
