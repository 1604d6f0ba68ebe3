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
from agentd.ledger.ledger import Moment
from agentd.ledger.records import Began, Change, Known, Noted
from agentd.ledger.store import Keeper
from agentd.samples import GpuSample, Sample
from bus import settings

BEGAN = Began(records.FORMAT, "abcd1234", 1)

texts = st.text(max_size=20)
some_records = st.lists(
    st.one_of(
        st.builds(
            Change,
            st.integers(0, 2**60),
            texts,
            st.sampled_from(["up", "down"]),
            st.tuples(texts),
            st.booleans(),
        ),
        st.builds(Known, st.integers(0, 2**60), st.integers(0, 2**60), st.integers(0, 2**60)),
        st.builds(Noted, st.integers(0, 2**60), texts, texts),
    ),
    max_size=20,
)


@given(some_records)
def test_records_come_back_as_they_went(written):
    data = b"".join(map(records.line, written))
    assert records.read(data) == (written, len(data))


@given(some_records, st.data())
def test_damage_anywhere_keeps_exactly_the_lines_before_it(written, data):
    lines = [records.line(record) for record in written] or [records.line(BEGAN)]
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
    assert not found or garbage.startswith(records.line(found[0]))


@pytest.fixture
def keep(tmp_path):
    made = []

    def make(folder: Path = tmp_path) -> Keeper:
        keeper = Keeper(folder / "a.ledger", settings.load({}))
        made.append(keeper)
        return keeper

    yield make
    for keeper in made:
        keeper._file.close()


def check(keeper: Keeper, boot: int) -> None:
    sample = Sample(at=boot / 1000, gpus=(GpuSample(uuid="GPU-a", index=0, name="A", state="up"),))
    keeper.note(keeper.ledger.observe(sample, Moment(boot, boot)))
    keeper.save()


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
    keeper = keep()
    keeper.open(1)
    keeper.resume("s", "b", Moment(1_000, 1_000))
    check(keeper, 1_000)
    assert keeper.trouble is None
    full = os.open("/dev/full", os.O_WRONLY)
    good, keeper._file._out = keeper._file._out, full
    blocker = tmp_path / "a.new"
    blocker.mkdir()  # nor can a new file be written beside the old one
    for boot in (6_000, 11_000, 16_000):
        check(keeper, boot)
        assert keeper.trouble is not None
    assert capsys.readouterr().out.count("ledger_not_written") == 1
    assert keeper.ledger.position(Moment(16_000, 16_000)) == 15_000
    os.close(good)
    blocker.rmdir()
    check(keeper, 21_000)
    assert keeper.trouble is None
    assert records.read(keeper.path.read_bytes())[0] == list(keeper.ledger.records())


def test_a_write_that_was_cut_short_is_taken_back(tmp_path):
    file = LedgerFile(tmp_path / "a.ledger")
    file.rewrite(records.line(BEGAN))
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
    file.append(records.line(Known(1, 1, 1)))
    assert records.read(file.path.read_bytes())[0] == [BEGAN, Known(1, 1, 1)]
    file.close()


def test_a_folder_that_cannot_be_made_leaves_the_agent_running(tmp_path):
    (tmp_path / "file").write_text("")
    keeper = Keeper(tmp_path / "file" / "below" / "a.ledger", settings.load({}))
    keeper.open(1)
    keeper.resume("s", "b", Moment(0, 0))
    check(keeper, 5_000)
    assert keeper.trouble is not None
    assert keeper.ledger.known.checks == 1
    keeper.close()


def test_a_file_of_a_newer_format_is_set_aside_and_not_misread(tmp_path, keep):
    (tmp_path / "a.ledger").write_bytes(records.line(Began(records.FORMAT + 1, "newer", 1)))
    keeper = keep()
    keeper.open(2)
    assert keeper.ledger.began.ledger != "newer"
    assert (tmp_path / "a.ledger.corrupt-2").exists()


def test_gpus_that_come_and_go_do_not_fill_the_memory(keep):
    keeper = keep()
    keeper.open(1)
    keeper.resume("s", "b", Moment(0, 0))
    check(keeper, 0)
    for number in range(600):  # MIG instances get new names each time they are made
        at = (number + 1) * 5_000
        gpus = (
            GpuSample(uuid="GPU-a", index=0, name="A", state="up"),
            GpuSample(uuid=f"MIG-{number}", index=1, name="M", state="up"),
        )
        keeper.note(keeper.ledger.observe(Sample(at=at / 1000, gpus=gpus), Moment(at, at)))
    assert len(keeper.ledger.timelines) <= 258
    assert {"GPU-a", "MIG-599"} <= set(keeper.ledger.timelines)
    assert "MIG-0" not in keeper.ledger.timelines
