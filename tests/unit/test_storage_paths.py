"""The fast path of healthy messages gives the rows of the slow path; what is no outcome takes
neither.
"""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import duckdb
import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import structs

from bus.contract.messages import AgentState, Incident, Outcome, Seconds, encode
from storage.engine import database
from storage.engine.columns import insert_statement, table_columns
from storage.engine.database import sql
from storage.engine.dictionary import Dictionaries
from storage.engine.rows import Arrival, HealthyRows, PingRow
from storage.ingest import wire
from storage.ingest.decode import DecodedBatch, decode_batch, full_row
from storage.ingest.detail_rows import ping_row
from storage.ingest.fast_path import read_healthy
from tests.storage_states import START, gpu, state

times = st.one_of(st.just(0.0), st.floats(0, 1e6, allow_subnormal=False))
latencies = st.one_of(st.none(), st.floats(-1e3, 1e6))
accounts = st.one_of(
    st.builds(Seconds, up=times),
    st.builds(Seconds, up=times, degraded=times, down=times, unknown=times, excused=times),
)


@st.composite
def scheduler_states(draw: st.DrawFn) -> AgentState:
    """From wholly healthy to odd in one or more ways."""
    seconds = draw(accounts)
    odd = draw(
        st.sets(
            st.sampled_from(
                ["gpu", "gpus", "percent", "window", "poor", "reason", "incident", "none", "remark"]
            )
        )
    )
    gpus = (gpu(seconds), gpu(seconds, uuid="GPU-2", index=None, name=""))
    if "gpu" in odd:
        gpus = (
            gpus[0],
            gpu(draw(accounts), state=draw(st.sampled_from(["up", "degraded", "unknown"]))),
        )
    about: dict[str, object] = {"response_ms": draw(latencies)}
    if "percent" in odd:
        about["uptime_percent"] = draw(st.one_of(st.none(), st.floats(0, 100)))
    if "window" in odd:
        about["window_seconds"] = draw(times)
    if "reason" in odd:
        about["reason"] = "bad_report"
    if "remark" in odd:
        about["remarks"] = ("unheard",)
    if draw(st.booleans()):
        about["since"] = START - timedelta(seconds=draw(st.integers(0, 10**7)))
    incident = Incident(gpu=None, state="up", reason="restarted", since=START)
    made = state(
        "a",
        draw(st.integers(1, 2**40)),
        START + timedelta(microseconds=draw(st.integers(-(10**15), 10**15))),
        None if "none" in odd else seconds,
        gpus=() if "gpus" in odd else gpus,
        incidents=(incident,) if "incident" in odd else (),
        **about,
    )
    return structs.replace(made, consecutive_poor=draw(st.integers(1, 9)) if "poor" in odd else 0)


@pytest.fixture(scope="module")
def tables() -> Iterator[duckdb.DuckDBPyConnection]:
    connection = duckdb.connect(":memory:")
    connection.execute((Path(database.__file__).parent / "schema.sql").read_text())
    yield connection
    connection.close()


def written(tables: duckdb.DuckDBPyConnection, row: PingRow) -> list[tuple[object, ...]]:
    """The row as it comes back."""
    tables.execute(insert_statement("pings"), {"rows": msgspec.json.encode(ping_row(row)).decode()})
    return _rows_taken_out(tables)


def written_healthy(
    tables: duckdb.DuckDBPyConnection, rows: HealthyRows
) -> list[tuple[object, ...]]:
    tables.register("healthy", structs.asdict(rows))
    tables.execute(sql("insert_healthy"))
    tables.unregister("healthy")
    return _rows_taken_out(tables)


def _rows_taken_out(tables: duckdb.DuckDBPyConnection) -> list[tuple[object, ...]]:
    found = tables.execute("SELECT * FROM pings").fetchall()
    tables.execute("DELETE FROM pings")
    return found


def read_one(data: bytes, names: Dictionaries, signature: str | None = None) -> DecodedBatch:
    return decode_batch([Arrival(1, "a", data, signature)], names)


@settings(deadline=None)  # the first use of a table takes longest
@given(scheduler_states())
@example(state("a", 1, START))
def test_both_paths_give_the_same_rows(tables: duckdb.DuckDBPyConnection, one: AgentState):
    names = Dictionaries([("b", 0), ("a", 1)], [])
    decoded, whole = read_one(encode(one), names), full_row(Arrival(1, "a", encode(one)), names)
    if decoded.full:
        assert decoded.full == {0: whole}
    else:
        assert written_healthy(tables, decoded.healthy) == written(tables, whole)
        assert (whole.gpus, whole.incidents, whole.evidence) == ((), (), None)


@given(st.lists(scheduler_states(), max_size=12), st.integers(1, 5))
def test_many_at_once_give_the_rows_of_each(several: list[AgentState], piece: int):
    names = Dictionaries([], [])
    batch = [Arrival(i, "a", encode(one)) for i, one in enumerate(several)]
    found = read_healthy(batch, names, piece)
    apart = [decode_batch([arrival], names) for arrival in batch]
    assert rows_of(found.rows) == [row for one in apart for row in rows_of(one.healthy)]
    assert found.indices.tolist() == [place for place, one in enumerate(apart) if len(one.healthy)]
    assert found.other_indices == [place for place, one in enumerate(apart) if one.full]
    assert sorted([*found.indices.tolist(), *found.other_indices]) == list(range(len(batch)))


def rows_of(rows: HealthyRows) -> list[tuple[object, ...]]:
    """Comparable: no NaN."""
    return [
        tuple(None if value != value else value for value in row)  # noqa: PLR0124  # NaN is what differs from itself
        for row in zip(*(column.tolist() for column in structs.astuple(rows)), strict=True)
    ]


def test_the_fast_path_is_taken():
    data = encode(state("a", 1, START + timedelta(microseconds=1)))
    assert len(read_one(data, Dictionaries([], [])).healthy) == 1
    signed = read_one(data, Dictionaries([], []), signature="s")
    assert len(signed.healthy) == 0
    assert signed.full[0].evidence


@pytest.mark.parametrize("index", [-1, 2**70])
def test_an_index_that_is_none_stops_nobody_else(index: int):
    """A host says what it likes of its own GPUs; what cannot be kept is set aside, alone."""
    odd = encode(state("a", 1, START)).replace(b'"index":0', b'"index":%d' % index)
    fine = encode(state("b", 1, START + timedelta(microseconds=1)))
    decoded = decode_batch([Arrival(1, "a", odd), Arrival(2, "b", fine)], Dictionaries([], []))
    assert len(decoded.healthy) == 1
    assert len(decoded.full) + len(decoded.poisoned) == 1


@pytest.mark.parametrize("seconds", [0.5, 900.25, 2.0**60])
def test_an_interval_that_is_no_number_of_seconds_is_kept_as_it_is(
    tables: duckdb.DuckDBPyConnection, seconds: float
):
    one = structs.replace(state("a", 1, START), interval_seconds=seconds)
    found = read_one(encode(one), Dictionaries([], [])).full[0]
    assert seconds in written(tables, found)[0]


def _with(outcome: dict[str, object]) -> bytes:
    made = msgspec.json.decode(encode(state("a", 1, START)))
    made["last"] |= outcome
    return msgspec.json.encode(made)


@pytest.mark.parametrize(
    ("outcome", "detail"),
    [
        ({"pinged_at": "2026-11-01T00:00:00"}, "timezone"),  # nobody knows when that was
        ({"ping_seq": 0}, ">= 1"),
        ({"ping_seq": 2**63}, "<="),
        ({"response_ms": 1e30}, "<="),
        ({"window_seconds": 1e300}, "<="),
        ({"seconds": {"up": 1e300}, "window_seconds": 1.0}, "<="),
        ({"late_ms": "soon"}, "late_ms"),
        ({"outcome": "lost"}, "outcome"),
    ],
)
def test_what_is_no_outcome_is_set_aside_with_the_reason(outcome: dict[str, object], detail: str):
    names = Dictionaries([], [])
    found = read_one(_with(outcome), names).poisoned[0]
    assert detail in found.detail
    assert names.agents.new() == []


OUTSIDE = [
    "0001-01-01T00:00:00+14:00",
    "1969-12-31T23:59:59.999999Z",
    "9999-01-01T00:00:00Z",
    "9999-12-31T23:59:59-14:00",
]
INSIDE = ["1970-01-01T00:00:00Z", "9998-12-31T23:59:59.999999Z", "1969-12-31T23:00:00-01:00"]


def _with_moment(field: str, text: str, *, is_healthy: bool) -> bytes:
    """A message in which one moment is another; one that is not healthy takes the slow path."""
    incident = Incident(gpu=None, state="up", reason="restarted", since=START, until=START)
    made = msgspec.json.decode(
        encode(state("a", 1, START, incidents=() if is_healthy else (incident,)))
    )
    *path, last = field.split(".")
    inner = made
    for name in path:
        inner = inner[int(name) if name.isdigit() else name]
    inner[last] = text
    return msgspec.json.encode(made)


@pytest.mark.parametrize(
    "field",
    ["last.pinged_at", "next_ping_at", "last.report.window.since", "last.report.window.until"],
)
@pytest.mark.parametrize("text", OUTSIDE + INSIDE)
def test_both_paths_take_the_same_moments(field: str, text: str):
    """An answer shows moments in UTC: one that UTC cannot say would spoil it for good."""
    for is_healthy in (True, False):
        decoded = read_one(_with_moment(field, text, is_healthy=is_healthy), Dictionaries([], []))
        assert (len(decoded.healthy), len(decoded.full)) == (
            (0, 0) if text in OUTSIDE else (is_healthy, not is_healthy)
        )
        assert all("1970 to 9998" in one.detail for one in decoded.poisoned.values())


@pytest.mark.parametrize("edge", ["since", "until"])
@pytest.mark.parametrize("text", OUTSIDE)
def test_an_incident_at_no_moment_is_set_aside(edge: str, text: str):
    odd = _with_moment(f"last.report.incidents.0.{edge}", text, is_healthy=False)
    assert "1970 to 9998" in read_one(odd, Dictionaries([], [])).poisoned[0].detail


def test_the_types_here_know_all_that_they_keep():
    """A field that messages carry and storage ought to keep is not overlooked by renaming it in one
    place only.
    """
    assert set(wire.StoredOutcome.__struct_fields__) <= set(Outcome.__struct_fields__)
    assert set(wire.StoredState.__struct_fields__) <= set(AgentState.__struct_fields__)


def test_the_rows_have_the_columns_of_the_schema():
    columns = {column.name for column in table_columns("pings")}
    assert set(PingRow.__struct_fields__) == columns
    assert set(HealthyRows.__struct_fields__) <= columns
