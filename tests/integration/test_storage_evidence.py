"""Remarks and the reports that are kept as evidence, from the message to the page of history."""

from datetime import timedelta
from pathlib import Path

import duckdb
import pytest

from bus.contract.messages import AgentState, Seconds
from bus.contract.questions import HistoryRequest
from bus.settings import load
from storage.answers import history
from tests.storage_kept import NOW, Kept
from tests.storage_states import state

HOUR = timedelta(hours=1)


@pytest.fixture(params=[20, 1], ids=["in the file", "in the archive"])
async def kept(tmp_path: Path, request: pytest.FixtureRequest):
    settings = load({}, GPUPING_DATA_DIR=str(tmp_path), STORAGE_ARCHIVE_AFTER_DAYS=request.param)
    made = Kept(settings)
    yield made
    await made.store.close()


async def test_a_refused_report_and_remarks_are_shown(kept: Kept):
    since = NOW - 80 * HOUR
    refused = '{"uptime_percent": 100.0, "seconds": {"up": 1e9}}'
    half = Seconds(up=1800.0, unknown=5400.0)
    states = [
        state("a", 1, since + HOUR, None, since=since, refused_report=refused),
        state("a", 2, since + 2 * HOUR, half, since=since, remarks=("unheard",)),
    ]
    await filled(kept, states)
    asked = HistoryRequest(hours=200.0, evidence=True)
    page = await kept.store.read(lambda reader: history.history(reader, "a", asked, NOW))
    answered, missed = page.pings
    assert answered.remarks == ("unheard",)
    assert answered.evidence is None
    assert missed.evidence is not None
    assert (missed.evidence.report, missed.evidence.refused) == (refused, True)
    assert missed.evidence.signature is None


async def test_a_partition_of_before_has_no_remarks_and_is_read(kept: Kept):
    await filled(kept, [state("a", 1, NOW - 80 * HOUR, remarks=("unheard",), since=NOW)])
    is_archived = kept.store.settings.STORAGE_ARCHIVE_AFTER_DAYS == 1
    files = list(kept.store.paths.archive.glob("day=*/pings-*.parquet"))
    assert bool(files) == is_archived
    for file in files:
        _without_remarks(file)
    asked = HistoryRequest(hours=200.0)
    page = await kept.store.read(lambda reader: history.history(reader, "a", asked, NOW))
    (ping,) = page.pings
    assert ping.remarks == (() if files else ("unheard",))


async def filled(kept: Kept, states: list[AgentState]) -> None:
    # A day is archived by the time of the newest outcome.
    await kept.fill([*states, state("later", 1, NOW)])
    while await kept.store.archive_next_day(NOW):
        pass


def _without_remarks(file: Path) -> None:
    with duckdb.connect(":memory:") as connection:
        connection.execute(f"CREATE TABLE rows AS SELECT * EXCLUDE (remarks) FROM '{file}'")  # noqa: S608  # ours
        connection.execute(f"COPY rows TO '{file}' (FORMAT parquet)")


async def test_evidence_is_shown_to_those_who_ask_for_it(kept: Kept):
    await kept.fill([state("a", 1, NOW - 80 * HOUR, None, since=NOW, refused_report="{}")])
    asked = HistoryRequest(hours=200.0)
    page = await kept.store.read(lambda reader: history.history(reader, "a", asked, NOW))
    assert page.pings[0].evidence is None
