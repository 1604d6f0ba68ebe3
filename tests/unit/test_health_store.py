"""The health rules' files survive a restart, not a reboot; no bad file ends agentd."""

import os

import pytest

from agentd.health.judgement import HealthMemory, Latch
from agentd.health.rules import DEFAULT_XIDS
from agentd.health.store import load_memory, load_xid_table, save_memory
from agentd.host.kernel_log import KernelLog
from bus.errors import SettingsError

MEMORY = HealthMemory(boot_id="b1", kernel_log=7, latches=(Latch(uuid="GPU-0", xid=79, since=5.0),))


def test_memory_survives_a_restart_within_the_boot(tmp_path):
    save_memory(tmp_path / "new" / "health.json", MEMORY)
    assert load_memory(tmp_path / "new" / "health.json", "b1") == MEMORY


def test_a_reboot_resets_gpus_and_so_memory(tmp_path):
    save_memory(tmp_path / "health.json", MEMORY)
    assert load_memory(tmp_path / "health.json", "b2") == HealthMemory(boot_id="b2")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"latches": 3}'])
def test_a_corrupt_file_is_set_aside(tmp_path, content):
    (tmp_path / "health.json").write_bytes(content)
    assert load_memory(tmp_path / "health.json", "b1") == HealthMemory(boot_id="b1")
    assert (tmp_path / "health.corrupt").read_bytes() == content


def test_a_disk_that_cannot_be_written_stops_nothing(tmp_path):
    (tmp_path / "file").write_text("in the way")
    save_memory(tmp_path / "file" / "health.json", MEMORY)


def test_the_xid_table_is_a_setting(tmp_path):
    table = tmp_path / "xids.toml"
    table.write_text('[xid]\n31 = "down"\n')
    assert load_xid_table(str(table))[31] == "down"
    assert load_xid_table(None) == DEFAULT_XIDS


@pytest.mark.parametrize("content", ['[xid]\n31 = "never"\n', "not toml", None])
def test_a_bad_xid_table_is_refused_in_one_line(tmp_path, content):
    table = tmp_path / "xids.toml"
    if content is not None:
        table.write_text(content)
    with pytest.raises(SettingsError) as refusal:
        load_xid_table(str(table))
    assert str(refusal.value).startswith(f"AGENT_XID_TABLE={str(table)!r}: ")
    assert "\n" not in str(refusal.value)


class TestKernelLog:
    """A FIFO stands in for /dev/kmsg: one record a read, and EAGAIN when there is no more."""

    @pytest.fixture
    def log(self, tmp_path):
        os.mkfifo(tmp_path / "kmsg")
        log = KernelLog(10, tmp_path / "kmsg")
        writer = os.open(tmp_path / "kmsg", os.O_WRONLY)
        yield log, lambda record: os.write(writer, record)
        os.close(writer)
        log.close()

    def test_an_xid_of_the_kernel_is_found(self, log):
        kernel, write = log
        write(
            b"4,11,900,-;NVRM: Xid (PCI:0000:3B:00): 79, pid=1234, GPU has fallen off the bus.\n"
            b" SUBSYSTEM=pci\n"
        )
        (xid,) = kernel.xids()
        assert (xid.pci, xid.number, kernel.last) == ("0000:3b:00", 79, 11)
        assert list(kernel.xids()) == []

    @pytest.mark.parametrize(
        "record",
        [
            b"4,10,900,-;NVRM: Xid (PCI:0000:3b:00): 79, already read\n",
            b"12,11,900,-;NVRM: Xid (PCI:0000:3b:00): 79, written from user space\n",
            b"4,11,900,-;something: NVRM: Xid (PCI:0000:3b:00): 79, quoted\n",
            b"6,11,900,-;usb 1-1: new device\n",
            b"garbage\n",
        ],
    )
    def test_anything_else_is_not(self, log, record):
        kernel, write = log
        write(record)
        assert list(kernel.xids()) == []

    def test_a_log_that_may_not_be_read_is_no_trouble(self, tmp_path):
        log = KernelLog(None, tmp_path / "absent")
        assert (log.readable, list(log.xids())) == (False, [])
