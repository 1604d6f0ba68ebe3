"""The ledger's chain: what is changed on the disk is noticed, and what a crash does is not called a
change."""

import re
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentd.ledger import records
from agentd.ledger.chain import HEADS_KEPT, LedgerChain, SealKey
from agentd.ledger.ledger import HOST, ClockReading
from agentd.ledger.records import CountedUntil
from agentd.ledger.store import LedgerStore
from agentd.samples import GpuSample, Sample
from bus.contract.durations import Interval
from bus.contract.remarks import LEDGER_FORGOTTEN, LEDGER_NEW, LEDGER_REWOUND
from bus.identity.ledger_heads import (
    BROKEN,
    FORGOTTEN,
    NEW_LEDGER,
    LedgerEditedError,
    heads_after,
    remark,
)
from bus.identity.signatures import GENESIS
from bus.settings import load

KEY = SealKey("UKEY", b"k" * 32)
CHECK = 5_000


class Host:
    """One host's ledger and its clock, and a scheduler that holds the heads of its reports."""

    def __init__(self, folder: Path, key: SealKey | None = KEY) -> None:
        self.path = folder / "a.ledger"
        self.key = key
        self.now = 1_000
        self.heads: tuple[str, ...] = ()
        self.start()

    def start(self) -> None:
        self.store = LedgerStore(self.path, load({}), self.key)
        self.store.open(self.now)
        self.store.resume(f"s-{self.now}", "boot", self.clocks())
        self.store.save(sync=True)

    def kill(self) -> None:
        self.store._file.close()

    def restart(self) -> None:
        self.kill()
        self.start()

    def clocks(self) -> ClockReading:
        return ClockReading(self.now, self.now)

    def check(self, state: str = "up", checks: int = 1) -> None:
        for _ in range(checks):
            gpu = GpuSample(uuid="GPU-a", index=0, name="A", state=state, reasons=())
            sample = Sample(at=self.now / 1000, gpus=(gpu,))
            self.store.queue(self.store.ledger.observe(sample, self.clocks()))
            self.store.save()
            self.now += CHECK

    def report(self) -> str:
        """What the responder does; returns what the ledger is said to extend."""
        extends = self.store.extension(self.heads)
        if extends in {BROKEN, NEW_LEDGER}:
            self.store.queue(self.store.ledger.distrust())
        self.store.queue(self.store.ledger.count(self.store.ledger.position(self.clocks())))
        self.store.save(sync=True)
        return extends

    @property
    def ledger_id(self) -> str:
        return self.store.ledger.created.ledger

    def recorded_report(self) -> str:
        extends = self.report()
        self.heads = heads_after(self.ledger_id, self.store.synced_head, self.heads)
        return extends

    def change_line(self, old: bytes, new: bytes, which: int = 0) -> None:
        """Edits the file, and mends the checksum of the line that was changed."""
        lines = self.path.read_bytes().splitlines(keepends=True)
        numbers = [number for number, line in enumerate(lines) if old in line]
        number = numbers[which]
        rest = lines[number][9:-1].replace(old, new)
        lines[number] = b"%08x %b\n" % (zlib.crc32(rest), rest)
        self.path.write_bytes(b"".join(lines))

    def up_milliseconds(self) -> int:
        now = self.store.ledger.position(self.clocks())
        durations = self.store.ledger.durations(HOST, Interval(0, now), now)
        return durations.up


@pytest.fixture
def host(tmp_path):
    made = Host(tmp_path)
    yield made
    made.kill()


def test_each_report_extends_the_one_before_it_through_restarts_kills_and_lost_answers(host):
    host.check()
    assert host.recorded_report() == GENESIS
    for _ in range(4):
        host.check(checks=3)
        host.report()  # its answer is lost
        host.restart()
        host.check()
        newest = host.heads[0]
        assert host.recorded_report() == newest
    assert remark(host.ledger_id, host.heads[0], host.heads) is None


def test_down_that_was_made_up_is_noticed_and_nothing_of_it_counts(host):
    host.check()
    host.recorded_report()
    host.check("down", checks=10)
    host.check("up", checks=2)
    host.kill()
    host.change_line(b'"down"', b'"up"')
    host.now += CHECK
    host.start()
    assert list(host.path.parent.glob("*.corrupt-*")), "the file that was changed is kept"
    assert host.report() == BROKEN
    assert host.up_milliseconds() == 0
    with pytest.raises(LedgerEditedError):
        remark(host.ledger_id, BROKEN, host.heads)
    # The scheduler keeps the head of the report that it refused, and goes on from there.
    host.heads = heads_after(host.ledger_id, host.store.synced_head, ())
    host.check(checks=3)
    newest = host.heads[0]
    assert host.recorded_report() == newest
    assert host.up_milliseconds() == 3 * CHECK


def test_the_past_before_a_report_cannot_be_changed_even_with_the_key(host):
    """Whoever has the key seals any line. The scheduler's head is not in what he made."""
    host.check("down", checks=5)
    host.recorded_report()
    changed = []
    for record in host.store.ledger.records():
        is_down = isinstance(record, records.ConditionChanged) and record.state == "down"
        changed.append(records.ConditionChanged(record.at, record.gpu, "up") if is_down else record)
    forged = LedgerStore(host.path.with_name("forged"), load({}), KEY)
    host.kill()
    host.path.write_bytes(forged._chain.whole_file(host.ledger_id, changed))
    host.start()
    assert host.report() == BROKEN


@pytest.fixture(scope="module")
def sealed(tmp_path_factory):
    """A host that has stopped, and the file that it left."""
    host = Host(tmp_path_factory.mktemp("sealed"))
    host.check("down", checks=2)
    host.recorded_report()
    host.check("up", checks=2)
    host.kill()
    return host, host.path.read_bytes()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_no_byte_can_be_changed_unnoticed(sealed, data):
    _, whole = sealed
    place = data.draw(st.sampled_from([at for at, byte in enumerate(whole) if byte != 10]))
    changed = bytearray(whole)
    changed[place] ^= 1 << data.draw(st.integers(0, 2))
    start = whole.rfind(b"\n", 0, place) + 1
    end = whole.find(b"\n", place)
    changed[start : start + 8] = b"%08x" % zlib.crc32(changed[start + 9 : end])  # mended
    chain = LedgerChain(KEY)
    read = chain.read(bytes(changed))
    is_noticed = read.is_edited or read.valid_bytes < len(changed)
    assert is_noticed or bytes(changed) == whole or not chain.newest_reported
    if is_noticed:
        assert len(read.records) <= whole[:place].count(b"\n")


def test_lines_that_are_left_out_put_elsewhere_or_taken_twice_do_not_fit(host):
    host.check("up", checks=3)
    host.recorded_report()
    host.check("down", checks=3)
    host.kill()
    lines = host.path.read_bytes().splitlines(keepends=True)
    for changed in (
        [*lines[:-3], *lines[-2:]],
        [*lines[:-3], lines[-2], lines[-3], lines[-1]],
        [*lines[:-2], lines[-3], *lines[-2:]],
    ):
        host.path.write_bytes(b"".join(changed))
        host.start()
        assert host.report() == BROKEN
        host.kill()


def test_a_seal_of_another_key_or_of_none_proves_nothing(tmp_path):
    host = Host(tmp_path)
    host.check(checks=3)
    host.recorded_report()
    host.kill()
    sealed = host.path.read_bytes()
    unsealed = re.sub(rb"(?m)^.{8} .{16} ", b"", sealed)
    lines = []
    for body in unsealed.splitlines():
        if b'"anchor"' not in body:
            lines.append(records.to_line(body))
    host.path.write_bytes(b"".join(lines))
    host.start()
    assert host.report() == BROKEN
    host.kill()
    # The same ledger under a new key: the scheduler has no head under it, and all of it counts.
    host.path.write_bytes(sealed)
    host.key = SealKey("UOTHER", b"o" * 32)
    host.heads = ()
    host.start()
    assert host.recorded_report() == GENESIS
    assert host.up_milliseconds() > 0
    host.kill()


def test_a_new_ledger_is_said_to_be_one(host):
    host.check()
    host.recorded_report()
    before = host.heads
    host.kill()
    host.path.unlink()
    host.start()
    assert host.report() == NEW_LEDGER
    assert remark(host.ledger_id, NEW_LEDGER, before) == LEDGER_NEW
    with pytest.raises(LedgerEditedError):
        remark(before[0].partition(".")[0], NEW_LEDGER, before)


def test_an_earlier_copy_of_the_file_is_a_rewind_to_a_head_that_was_seen(host):
    host.check()
    host.recorded_report()
    earlier = host.path.read_bytes()
    host.check()
    host.recorded_report()
    newest, before = host.heads
    host.kill()
    host.path.write_bytes(earlier)
    host.start()
    assert host.report() == before
    assert remark(host.ledger_id, before, host.heads) == LEDGER_REWOUND
    assert newest != before


def test_a_report_names_what_is_on_the_disk_while_the_disk_refuses(host):
    host.check()
    host.recorded_report()
    blocker = host.path.with_suffix(".new")
    blocker.mkdir()
    held = host.store.synced_head
    host.store._file._out, kept = None, host.store._file._out
    host.check(checks=2)
    assert host.recorded_report() == host.heads[0]
    assert host.store.write_error
    assert host.store.synced_head == held
    host.store._file._out = kept
    blocker.rmdir()
    host.restart()
    assert host.recorded_report() == f"{host.ledger_id}.{held}"


def test_a_head_of_long_ago_is_forgotten_and_not_broken(host):
    host.check()
    host.recorded_report()
    first = host.heads
    for _ in range(HEADS_KEPT):
        assert host.store.extension(first) == first[0]
        host.report()
    assert host.store.extension(first) == FORGOTTEN
    assert remark(host.ledger_id, FORGOTTEN, first) == LEDGER_FORGOTTEN


def test_a_chain_goes_on_when_the_file_is_written_anew(host):
    for _ in range(3):
        host.check(checks=2)
        host.recorded_report()
    host.store._write_whole = True
    host.store.save()
    anchors = host.path.read_bytes().count(b'"anchor"')
    assert anchors == 1
    newest = host.heads[0]
    host.restart()
    assert host.recorded_report() == newest


def test_no_head_may_be_claimed_that_was_not_recorded():
    with pytest.raises(LedgerEditedError):
        remark("ledger", "ledger.00", ())
    with pytest.raises(LedgerEditedError):
        remark("ledger", GENESIS, ("ledger.00",))
    assert remark("ledger", GENESIS, ()) is None


def test_a_ledger_without_keys_has_the_lines_that_it_always_had(tmp_path):
    host = Host(tmp_path, key=None)
    host.check(checks=2)
    host.report()
    found, valid = records.read(host.path.read_bytes())
    assert valid == host.path.stat().st_size
    assert isinstance(found[-1], CountedUntil)
    assert b"anchor" not in host.path.read_bytes()
    host.kill()
