"""The ledger's file: what a kill, a torn write, a full disk and a second process do to it."""

import os
import resource
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledger_world import INTERVAL, World

from agentd.ledger import records
from agentd.ledger.file import LedgerFile, LedgerInUseError
from agentd.ledger.ledger import ClockReading
from agentd.ledger.records import ConditionChanged, EventNoted, LedgerCreated, Progress
from agentd.ledger.store import LedgerStore
from agentd.samples import GpuSample, Sample
from bus import settings

BEGAN = LedgerCreated(records.FORMAT, "abcd1234", 1)

texts = st.text(max_size=20)
some_records = st.lists(
    st.one_of(
        st.builds(
            ConditionChanged,
            st.integers(0, 2**60),
            texts,
            st.sampled_from(["up", "down"]),
            st.tuples(texts),
            st.booleans(),
        ),
        st.builds(Progress, st.integers(0, 2**60), st.integers(0, 2**60), st.integers(0, 2**60)),
        st.builds(EventNoted, st.integers(0, 2**60), texts, texts),
    ),
    max_size=20,
)


@given(some_records)
def test_records_come_back_as_they_went(written):
    data = b"".join(map(records.encode_line, written))
    assert records.read(data) == (written, len(data))


@given(some_records, st.data())
def test_damage_anywhere_keeps_exactly_the_lines_before_it(written, data):
    lines = [records.encode_line(record) for record in written] or [records.encode_line(BEGAN)]
    whole = bytearray(b"".join(lines))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    found, good = records.read(bytes(whole))
    assert good <= at
    assert b"".join(lines).startswith(bytes(whole)[:good])
    assert (
        len(b"".join(lines[: len(found) + 1])) > at
    )  # nothing that was intact before the damage is lost


@given(st.binary(max_size=300))
def test_garbage_is_no_record_and_no_crash(garbage):
    found, good = records.read(garbage)
    assert good <= len(garbage)
    assert not found or garbage.startswith(records.encode_line(found[0]))


@pytest.fixture
def keep(tmp_path):
    made = []

    def make(folder: Path = tmp_path) -> LedgerStore:
        store = LedgerStore(folder / "a.ledger", settings.load({}))
        made.append(store)
        return store

    yield make
    for store in made:
        store._file.close()


def check(store: LedgerStore, boot: int) -> None:
    sample = Sample(at=boot / 1000, gpus=(GpuSample(uuid="GPU-a", index=0, name="A", state="up"),))
    store.queue(store.ledger.observe(sample, ClockReading(boot, boot)))
    store.save()


def test_two_processes_never_keep_one_ledger(keep):
    first, second = keep(), keep()
    first.open(1)
    with pytest.raises(LedgerInUseError, match="another agentd"):
        second.open(1)
    first.close()
    second.open(1)


def test_a_check_costs_few_bytes_and_a_day_stays_small(tmp_path):
    world = World(tmp_path, gpus=8)
    world.start()
    world.pass_time(INTERVAL)
    before = world.path.stat().st_size
    world.pass_time(100 * INTERVAL)
    assert (world.path.stat().st_size - before) / 100 < 64
    largest = 0
    for _ in range(24):
        world.pass_time(3_600_000)
        largest = max(largest, world.path.stat().st_size)
    assert largest < 300_000


def test_a_full_disk_is_told_once_and_everything_is_written_when_there_is_room(
    keep, capsys, tmp_path
):
    store = keep()
    store.open(1)
    store.resume("s", "b", ClockReading(1_000, 1_000))
    check(store, 1_000)
    assert store.write_error is None
    full = os.open("/dev/full", os.O_WRONLY)
    good, store._file._out = store._file._out, full
    blocker = tmp_path / "a.new"
    blocker.mkdir()  # nor can a new file be written beside the old one
    for boot in (6_000, 11_000, 16_000):
        check(store, boot)
        assert store.write_error is not None
    assert capsys.readouterr().out.count("ledger_write_failed") == 1
    assert store.ledger.position(ClockReading(16_000, 16_000)) == 15_000
    os.close(good)
    blocker.rmdir()
    check(store, 21_000)
    assert store.write_error is None
    assert records.read(store.path.read_bytes())[0] == list(store.ledger.records())


def test_a_write_that_was_cut_short_is_taken_back(tmp_path):
    file = LedgerFile(tmp_path / "a.ledger")
    file.rewrite(records.encode_line(BEGAN))
    size = file.size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (size + 10, before[1])
    )  # the disk takes ten bytes and no more
    try:
        with pytest.raises(OSError, match="only a part"):
            file.append(b"x" * 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert file.path.stat().st_size == size
    file.append(records.encode_line(Progress(1, 1, 1)))
    assert records.read(file.path.read_bytes())[0] == [BEGAN, Progress(1, 1, 1)]
    file.close()


def test_a_folder_that_cannot_be_made_leaves_the_agent_running(tmp_path):
    (tmp_path / "file").write_text("")
    store = LedgerStore(tmp_path / "file" / "below" / "a.ledger", settings.load({}))
    store.open(1)
    store.resume("s", "b", ClockReading(0, 0))
    check(store, 5_000)
    assert store.write_error is not None
    assert store.ledger.progress.checks == 1
    store.close()


def test_a_file_of_a_newer_format_is_set_aside_and_not_misread(tmp_path, keep):
    (tmp_path / "a.ledger").write_bytes(
        records.encode_line(LedgerCreated(records.FORMAT + 1, "newer", 1))
    )
    store = keep()
    store.open(2)
    assert store.ledger.created.ledger != "newer"
    assert (tmp_path / "a.ledger.corrupt-2").exists()


def test_gpus_that_come_and_go_do_not_fill_the_memory(keep):
    store = keep()
    store.open(1)
    store.resume("s", "b", ClockReading(0, 0))
    check(store, 0)
    for number in range(600):  # MIG instances get new names each time they are made
        at = (number + 1) * 5_000
        gpus = (
            GpuSample(uuid="GPU-a", index=0, name="A", state="up"),
            GpuSample(uuid=f"MIG-{number}", index=1, name="M", state="up"),
        )
        store.queue(store.ledger.observe(Sample(at=at / 1000, gpus=gpus), ClockReading(at, at)))
    assert len(store.ledger.timelines) <= 258
    assert {"GPU-a", "MIG-599"} <= set(store.ledger.timelines)
    assert "MIG-0" not in store.ledger.timelines
