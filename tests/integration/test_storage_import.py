"""Archives of others taken in: each outcome once, and what is no partition refused in one line."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import duckdb
import msgspec
import pytest

from bus.settings import Settings, load
from storage.archive import imports
from storage.engine.errors import StorageError
from storage.store.store import Store
from tests.storage_days import (
    NOW,
    arrivals,
    everything,
    mixed,
    opened,
    rollup_rows,
    tended,
    written_to,
)

OLDEST = f"day={NOW - timedelta(days=6):%Y-%m-%d}"


@pytest.fixture
def kept(tmp_path: Path) -> Settings:
    return load({}, GPUPING_DATA_DIR=str(tmp_path), STORAGE_ARCHIVE_AFTER_DAYS=2)


@pytest.fixture
async def archive(kept: Settings) -> Path:
    """The archive of a storage that has ended."""
    store = await opened(kept)
    await written_to(store, arrivals(mixed()))
    await tended(store)
    await store.close()
    return store.paths.archive


@pytest.fixture
def other(kept: Settings) -> Settings:
    return msgspec.structs.replace(kept, STORAGE_NAME="other", STORAGE_ARCHIVE_AFTER_DAYS=90)


async def test_an_archive_is_taken_in_once_and_completely(kept: Settings, tmp_path: Path):
    whole = await opened(kept)
    await written_to(whole, arrivals(mixed()))
    while await whole.archive_next_day(NOW):
        pass
    folder = whole.paths.archive
    await whole.close()

    other = msgspec.structs.replace(kept, STORAGE_NAME="other", STORAGE_ARCHIVE_AFTER_DAYS=90)
    some = await opened(other)
    await written_to(some, arrivals(mixed()[::3]))
    while await some.seal(NOW):
        pass
    await some.close()
    seen: list[tuple[int, int]] = []
    first = imports.import_archive(
        other, folder, progress=lambda done, there: seen.append((done, there))
    )
    again = imports.import_archive(other, folder)
    assert first.added > 0
    assert first.held > 0
    assert (again.added, again.held) == (0, first.added + first.held)
    assert seen[-1] == (4, 4)

    merged = await opened(other)
    await written_to(merged, arrivals(mixed()))  # the days that were not archived
    expected = Store(msgspec.structs.replace(other, STORAGE_NAME="expected"))
    await expected.open(NOW)
    await written_to(expected, arrivals(mixed()))
    while await expected.seal(NOW):
        pass
    assert await everything(merged) == await everything(expected)
    assert await rollup_rows(merged) == await rollup_rows(expected)
    await merged.close()
    await expected.close()
    with pytest.raises(StorageError, match="no partitions"):
        imports.import_archive(other, tmp_path / "nothing")


async def test_a_second_generation_is_taken_in(kept: Settings, other: Settings):
    states = mixed()
    store = await opened(kept)
    await written_to(store, arrivals([one for one in states if one is not states[4]]))
    await tended(store)
    for late, again in ((states[4], 1000), (states[5], 2000)):
        await written_to(store, arrivals([late], again))
        await tended(store)
    folder, shown = store.paths.archive, await everything(store)
    await store.close()
    assert list(folder.glob("day=*/pings-2.parquet"))
    columns = duckdb.sql(
        f"FROM read_parquet('{folder}/*/*-2.parquet', hive_partitioning = false)"
    ).columns
    assert "day" not in columns
    assert imports.import_archive(other, folder).added > 0
    merged = await opened(other)
    await written_to(merged, arrivals(states))
    assert await everything(merged) == shown
    await merged.close()


async def test_a_column_too_many_goes_nowhere(archive: Path, other: Settings, tmp_path: Path):
    """Files of a second generation once had their day as a column."""
    folder = _copied(archive, tmp_path, "SELECT *, DATE '2026-01-01' AS day FROM {file}")
    assert imports.import_archive(other, folder).added == 12
    store = await opened(other)
    assert (await everything(store))["pings"][0] == 12
    await store.close()


async def test_each_outcome_comes_in_once(archive: Path, other: Settings, tmp_path: Path):
    folder = _copied(archive, tmp_path, "FROM {file} UNION ALL FROM {file}")
    assert imports.import_archive(other, folder) == imports.Imported(days=1, added=12, held=12)
    merged, whole = (
        await opened(other),
        await opened(msgspec.structs.replace(other, STORAGE_NAME="whole")),
    )
    day = [one for one in mixed() if f"day={one.last.pinged_at:%Y-%m-%d}" == OLDEST]
    await written_to(whole, arrivals(day))
    assert await everything(merged) == await everything(whole)
    await merged.close()
    await whole.close()


def _copied(
    archive: Path, tmp_path: Path, rows: str, name: str = f"{OLDEST}/pings-1.parquet"
) -> Path:
    """A foreign archive of one day, its files made from ours.

    `name`: what its outcomes are called.
    """
    folder = tmp_path / "foreign"
    for file in (archive / OLDEST).iterdir():
        made = folder / OLDEST / file.name if not file.name.startswith("pings") else folder / name
        made.parent.mkdir(parents=True, exist_ok=True)
        text = rows.replace("{file}", f"read_parquet('{file}', hive_partitioning = false)")
        text = text if file.name.startswith("pings") or "UNION" in rows else f"FROM '{file}'"
        duckdb.sql(f"COPY ({text}) TO '{made}' (FORMAT parquet)")
    return folder


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ("SELECT 1 AS x", "no column agent_id"),
        ("SELECT * EXCLUDE (late_us) FROM {file}", "no column late_us"),
        (
            "SELECT * REPLACE (ping_seq::VARCHAR AS ping_seq) FROM {file}",
            "ping_seq is VARCHAR, not BIGINT",
        ),
        ("SELECT * REPLACE ('odd' AS outcome) FROM {file}", "'odd'"),
        ("SELECT * REPLACE (NULL::VARCHAR AS agent_id) FROM {file}", "12 rows with empty columns"),
        ("SELECT * REPLACE (-ping_seq AS ping_seq) FROM {file}", "12 rows numbered below 1"),
        ("SELECT * REPLACE ('no JSON' AS gpus) FROM {file}", "'no JSON' cannot be its gpus"),
        ("SELECT * REPLACE ('../x y' AS agent_id) FROM {file}", "'../x y' cannot be its agent_id"),
        (
            "SELECT * REPLACE (pinged_us - 86400000000 AS pinged_us) FROM {file}",
            "12 rows outside of",
        ),
    ],
)
async def test_rows_that_are_none_are_refused_in_one_line(
    archive: Path, other: Settings, tmp_path: Path, rows: str, why: str
):
    folder = _copied(archive, tmp_path, rows)
    with pytest.raises(StorageError, match=why) as refused:
        imports.import_archive(other, folder)
    assert "pings-1.parquet" in str(refused.value)
    assert "\n" not in str(refused.value)
    store = await opened(other)
    assert (await everything(store))["pings"][0] == 0
    await store.close()


FILES: dict[str, Callable[[Path], object]] = {
    "a folder": lambda path: path.mkdir(),
    "a link to nothing": lambda path: path.symlink_to("/nonexistent"),
    "a link to something else": lambda path: path.symlink_to("/etc/passwd"),
    "nothing in it": lambda path: path.touch(),
}


@pytest.mark.parametrize("kind", FILES)
def test_files_that_are_none_are_refused_in_one_line(other: Settings, tmp_path: Path, kind: str):
    file = tmp_path / "foreign" / OLDEST / "pings-1.parquet"
    file.parent.mkdir(parents=True)
    FILES[kind](file)
    with pytest.raises(StorageError, match=r"pings-1\.parquet") as refused:
        imports.import_archive(other, tmp_path / "foreign")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "day=20261101/pings-1.parquet",
            "day=2026-W45-1/pings-1.parquet",
            "day=2026-02-30/pings-1.parquet",
        ),
        *(
            f"{OLDEST}/pings-01.parquet",
            f"{OLDEST}/pings-0.parquet",
            f"{OLDEST}/pings-\N{SUPERSCRIPT TWO}.parquet",
        ),
        *(f"{OLDEST}/pings-99999999999.parquet", f"{OLDEST}/pings-1'x.parquet"),
    ],
)
def test_names_that_we_do_not_write_are_no_partitions(
    other: Settings, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
):
    file = tmp_path / "foreign" / name
    file.parent.mkdir(parents=True)
    file.touch()
    with pytest.raises(StorageError, match="no partitions"):
        imports.import_archive(other, tmp_path / "foreign")
    assert "archive_name_ignored" in capsys.readouterr().out


async def test_linked_files_are_taken_in(archive: Path, other: Settings, tmp_path: Path):
    folder = tmp_path / "foreign"
    (folder / OLDEST).mkdir(parents=True)
    for file in (archive / OLDEST).iterdir():
        (folder / OLDEST / file.name).symlink_to(file)
    assert imports.import_archive(other, folder).added == 12


async def test_the_services_own_archive_is_inspected_alike(
    archive: Path, kept: Settings, tmp_path: Path
):
    """Where the history file is lost, a partition that is none is set aside, and the others come
    in.
    """
    odd = _copied(archive, tmp_path, "FROM {file} UNION ALL FROM {file}") / OLDEST
    for file in odd.iterdir():
        file.replace(archive / OLDEST / file.name)
    (archive.parent / "storage.duckdb").unlink()
    store = await opened(kept)
    assert await store.read(lambda reader: len(reader.partitions.days)) == 3
    assert len(list((archive / OLDEST).glob("*.damaged-*"))) == 3
    await written_to(store, arrivals(mixed()))
    assert (await everything(store))["pings"][0] == len(mixed())
    await store.close()
