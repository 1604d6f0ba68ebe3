"""Files out of a real history file are verified: an export, days of the archive, a bundle."""

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from bus.contract.exports import TableRequest
from bus.contract.messages import encode
from bus.contract.statements import StatementRequest
from bus.settings import load
from gpuping.commands import verify
from gpuping.verification import files
from gpuping.verification.records import InputError, Trusted
from gpuping.verification.verifier import Verifier
from storage.answers import tables
from storage.engine.rows import Arrival
from storage.statements import bundle
from tests.signed_history import FLEET, KEY, month
from tests.storage_kept import NOW, Kept
from tests.storage_states import state

TRUSTED = Trusted(FLEET, {"a-1": KEY.public})
REFUSED = "it was refused, for its ledger is broken"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the files: all.parquet, october.bundle, november.bundle, days/."""
    folder = tmp_path_factory.mktemp("kept")
    asyncio.run(write_files(folder))
    return folder


async def write_files(folder: Path) -> None:
    kept = Kept(load({}, GPUPING_DATA_DIR=str(folder), STORAGE_ARCHIVE_AFTER_DAYS=1))
    await kept.store.open(NOW)
    arrivals = month().arrivals
    later = encode(state("later", 1, NOW))  # a day is archived by the time of the newest outcome
    arrivals.append(Arrival(len(arrivals) + 1, "later", later))
    await kept.store.write(1, await kept.store.prepare(arrivals))
    asked = TableRequest(table="history", format="parquet", agent_id="a-1", hours=1_000.0)
    exported = await kept.file(lambda reader: tables.table(reader, asked, NOW), "parquet")
    (folder / "all.parquet").write_bytes(exported)
    for name, of in (("october", "2026-10"), ("november", "2026-11")):
        request = StatementRequest(month=of)
        text = await kept.store.read(
            lambda reader, request=request: bundle.bundle(reader, "a-1", request, NOW, 99.0)
        )
        (folder / f"{name}.bundle").write_text(text)
    while await kept.store.archive_next_day(NOW):
        pass
    archive = kept.store.paths.archive
    await kept.store.close()
    (folder / "days").symlink_to(archive)


def verified(*paths: Path) -> Verifier:
    verifier = Verifier(TRUSTED)
    for path in paths:
        for content in files.read(path):
            if content.statement is None:
                verifier.add_all(content.outcomes)
            else:
                verifier.add_statement(content.statement, list(content.outcomes))
    return verifier


def test_each_kind_of_file_holds(made: Path) -> None:
    for path, outcomes, signed in (
        (made / "all.parquet", 16, 14),
        (made / "days", 16, 14),
        (made / "october.bundle", 16, 14),
        (made / "november.bundle", 13, 11),  # from the day before the month
    ):
        verifier = verified(path)
        assert verifier.faults == [], path
        assert [finding.text for finding in verifier.findings] == [REFUSED]
        (summary,) = verifier.summaries
        assert (summary.outcomes, summary.signed, summary.unsigned) == (outcomes, signed, 0), path


def test_bundles_of_two_months_overlap_and_hold_together(made: Path) -> None:
    verifier = verified(made / "october.bundle", made / "november.bundle")
    assert verifier.faults == []
    assert [summary.signed for summary in verifier.summaries] == [14, 11]


def test_a_day_alone_and_its_evidence_alone_hold(made: Path) -> None:
    days = sorted((made / "days").iterdir())
    assert len(days) >= 2
    for day in days:
        assert verified(day).faults == []
        assert verified(next(day.glob("pings-*.parquet"))).faults == []


def more_up(document: Any) -> None:
    document["statement"]["host"]["seconds"]["up"] += 1.0


def moved(document: Any) -> None:
    seconds = document["statement"]["host"]["seconds"]
    seconds["up"] += seconds["down"]
    seconds["down"] = 0.0


def percent(document: Any) -> None:
    document["statement"]["host"]["uptime_percent"] = 100.0


def gpu(document: Any) -> None:
    document["statement"]["gpus"][0]["seconds"]["up"] -= 60.0


def count(document: Any) -> None:
    document["statement"]["missed"] = 0


def remark(document: Any) -> None:
    document["statement"]["remarks"] = {}


def enrolled(document: Any) -> None:
    document["statement"]["enrolled_seconds"] += 60.0


def left_out(document: Any) -> None:
    del document["outcomes"][3]


def row(document: Any) -> None:
    times = document["outcomes"][4]["times_ms"]
    times[0] += times[2]
    times[2] = 0


def report(document: Any) -> None:
    outcome = document["outcomes"][4]
    outcome["report"] = outcome["report"].replace('"down":1000.5', '"down":1000.4')


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (more_up, "host: up is"),
        (moved, "host: down is 0.000 s"),
        (percent, "host: uptime_percent is 100.000"),
        (gpu, "up is"),
        (count, "missed is 0, the outcomes have"),
        (remark, "its remarks are not those"),
        (enrolled, "enrolled_seconds is not"),
        (left_out, "does not follow ping 3"),
        (row, "of uptime, its report"),
        (report, "the signature is wrong"),
    ],
)
def test_what_is_changed_in_a_bundle_is_found_and_named(
    made: Path, tmp_path: Path, change: Callable[[Any], None], text: str
) -> None:
    document = json.loads((made / "october.bundle").read_text())
    change(document)
    path = tmp_path / "changed.bundle"
    path.write_text(json.dumps(document))
    found = [finding.text for finding in verified(path).faults]
    assert any(text in said for said in found), found


ODD_VALUES = (
    None,
    "",
    -1,
    1e308,
    10**30,
    float("nan"),
    float("inf"),
    True,
    [],
    {},
    [1],
    {"a": 1},
    "2026-13-01T00:00:00Z",
    "\ud800",
    2**63,
)


def places(node: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Each place in a document but its root; of lists the first two entries."""
    found = [path] if path else []
    if isinstance(node, dict):
        for name in node:
            found += places(node[name], (*path, name))
    elif isinstance(node, list):
        for number in range(min(2, len(node))):
            found += places(node[number], (*path, number))
    return found


def test_no_value_in_any_place_of_a_bundle_ends_in_anything_but_an_answer(
    made: Path, tmp_path: Path
) -> None:
    """A file may come from somebody who wants it to be believed, or the program to fail."""
    text = (made / "november.bundle").read_text()
    path = tmp_path / "odd.bundle"
    refusals = []
    for *parents, last in places(json.loads(text)):
        for value in (*ODD_VALUES, "REMOVED"):
            document = json.loads(text)
            node = document
            for name in parents:
                node = node[name]
            node[last] = value
            if value == "REMOVED":
                del node[last]
            path.write_text(json.dumps(document))
            try:
                findings = verified(path).findings
            except InputError as refused:
                refusals.append(str(refused))
                continue
            for finding in findings:
                verify.shown(finding)
    assert refusals
    assert [said for said in refusals if "\n" in said] == []


def test_a_statement_that_counts_time_twice_or_of_another_month_is_found(
    made: Path, tmp_path: Path
) -> None:
    path = tmp_path / "changed.bundle"
    text = (made / "november.bundle").read_text()

    def faults_of(change: Callable[[Any], None]) -> list[str]:
        document = json.loads(text)
        change(document["statement"])
        path.write_text(json.dumps(document))
        return [finding.text for finding in verified(path).faults]

    def twice(statement: Any) -> None:
        statement["enrolled"] *= 2
        for account in (statement, statement["host"], *statement["gpus"]):
            if "enrolled_seconds" in account:
                account["enrolled_seconds"] *= 2
            if "seconds" in account:
                account["seconds"]["up"] *= 2

    def another_month(statement: Any) -> None:
        statement["until"] = "2026-12-01T12:00:00Z"

    overlap = "statement: enrolled: its spans overlap, or leave the time of the statement"
    assert faults_of(twice) == [overlap]
    assert faults_of(another_month) == ["statement: its time is not within its month"]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda document: document.update(statement=None), "statement: expected an object"),
        (lambda document: document["statement"].update(agent_id="a-2"), "of another agent"),
        (lambda document: document["statement"].update(month="2026-10"), "of another agent or m"),
        (lambda document: document["statement"].update(schema_version=2), "schema_version is 2"),
        (lambda document: document["statement"]["host"].update(uptime_percent="x"), "a number"),
        (lambda document: document["outcomes"][1].update(pinged_us=-1), "outcomes[1].pinged_us"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_place(
    made: Path, tmp_path: Path, change: Callable[[Any], None], text: str
) -> None:
    document = json.loads((made / "november.bundle").read_text())
    change(document)
    path = tmp_path / "changed.bundle"
    path.write_text(json.dumps(document))
    with pytest.raises(InputError) as refused:
        verified(path)
    assert text in str(refused.value)


def test_a_file_whose_name_is_not_utf8_is_refused_in_one_line(made: Path, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xff.parquet")
    path.write_bytes((made / "all.parquet").read_bytes())
    with pytest.raises(InputError, match="its name is not UTF-8"):
        verified(path)


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda data: data[:-2], "it was cut off: what begins at line 1, column "),
        (lambda data: data[: data.index(b"GPU-") + 2], "it was cut off: what begins at line 1, "),
        (lambda data: data.replace(b'"outcomes":', b'"outcomes";'), "is wrong at line 1, column "),
        (lambda data: data + b"{}", "it was damaged: its JSON is wrong at line 2, column "),
        (lambda data: data.replace(b"GPU-", b"GP\xff-"), "is not UTF-8"),
        (lambda data: b"PAR1\xff" + data, "neither JSON nor a file whose name ends in .parquet"),
        (lambda data: data.replace(b'"version":1', b'"version":NaN'), "that JSON of these files"),
    ],
)
def test_a_bundle_that_was_cut_or_damaged_says_where(
    made: Path, tmp_path: Path, spoil: Callable[[bytes], bytes], text: str
) -> None:
    path = tmp_path / "spoilt.bundle"
    path.write_bytes(spoil((made / "november.bundle").read_bytes()))
    with pytest.raises(InputError) as refused:
        verified(path)
    assert text in str(refused.value)


def test_signatures_that_were_all_taken_away_are_missed_where_the_key_is_known(
    made: Path, tmp_path: Path
) -> None:
    """Beside another agent, whose reports are signed, everything seemed right."""
    path = tmp_path / "stripped.parquet"
    with duckdb.connect() as connection:
        query = f"SELECT * REPLACE (NULL AS signature) FROM '{made / 'all.parquet'}'"  # noqa: S608
        connection.execute(f"COPY ({query}) TO '{path}' (FORMAT parquet)")
    verifier = verified(path)
    verifier.end()
    said = [fault.text for fault in verifier.faults]
    assert said == ["none of its reports is signed: nothing is proven of it"]
    verifier = Verifier(Trusted(FLEET))
    verifier.add_all(next(iter(files.read(path))).outcomes)
    verifier.end()
    found = verifier.findings[-1]
    assert (found.text, found.is_fault) == (said[0], False)


def test_a_key_of_an_agent_that_no_file_has_is_said(made: Path) -> None:
    """A mistyped id would leave the key of the agent that is there unchecked."""
    verifier = Verifier(Trusted(FLEET, {"a-01": KEY.public}))
    for content in files.read(made / "all.parquet"):
        verifier.add_all(content.outcomes)
    verifier.end()
    said = [(fault.agent_id, fault.text) for fault in verifier.faults]
    assert said == [("a-01", "a key of it was given, and no ping of it is there")]


def test_a_name_with_the_letters_of_a_pattern_is_one_file(made: Path, tmp_path: Path) -> None:
    path = tmp_path / "a[1]*.parquet"
    path.write_bytes((made / "all.parquet").read_bytes())
    (tmp_path / "a1b.parquet").write_bytes((made / "all.parquet").read_bytes())
    assert verified(path).summaries[0].signed == 14


@pytest.mark.parametrize("columns", ["REPLACE (NULL AS up_seconds)", "EXCLUDE (up_seconds)"])
def test_seconds_that_were_taken_out_of_an_export_are_missed(
    made: Path, tmp_path: Path, columns: str
) -> None:
    """Every signature is right, and nothing of what was accounted could be compared with them."""
    path = tmp_path / "less.parquet"
    with duckdb.connect() as connection:
        query = f"SELECT * {columns} FROM '{made / 'all.parquet'}'"  # noqa: S608  # ours
        connection.execute(f"COPY ({query}) TO '{path}' (FORMAT parquet)")
    said = [finding.text for finding in verified(path).faults]
    assert said == 14 * ["nothing is accounted for, though it was answered"]


def test_what_is_changed_in_a_day_of_the_archive_is_found(made: Path, tmp_path: Path) -> None:
    day = min((made / "days").iterdir())
    for file in day.glob("*.parquet"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (pings,) = tmp_path.glob("pings-*.parquet")
    with duckdb.connect() as connection:
        connection.execute(f"CREATE TABLE rows AS SELECT * FROM '{pings}'")  # noqa: S608  # ours
        connection.execute("UPDATE rows SET up_ms = up_ms - 60000 WHERE ping_seq = 2")
        connection.execute(f"COPY rows TO '{pings}' (FORMAT parquet)")
    (finding, *_) = verified(tmp_path).faults
    assert (finding.agent_id, finding.ping_seq) == ("a-1", 2)
    assert finding.at_us
    assert "its report" in finding.text


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.json", b"garbage"),
        ("x.json", b"[]"),
        ("x.json", b"{}"),
        ("x.json", b'{"format": "other", "version": 1}'),
        ("x.bundle", b'{"format": "gpuping-statement-bundle", "version": 1, "agent_id": "a"}'),
        ("x.parquet", b"garbage"),
        ("pings-1.parquet", b"garbage"),
    ],
)
def test_a_file_that_is_none_of_these_is_refused_in_one_line(
    tmp_path: Path, name: str, content: bytes
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError) as refused:
        verified(path)
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith(f"{path}: ")
