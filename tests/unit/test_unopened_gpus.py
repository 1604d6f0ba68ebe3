"""A GPU that cannot be opened at enrolment is shown: "1 of 2", its index, address and reason."""

from datetime import UTC, datetime
from pathlib import Path

from agentd.nvml.library import unexplained_addresses
from bus.contract.messages import AgentEntry, GpuReport, UnopenedGpu, UptimeReport, Window
from bus.contract.questions import ExpectedGpus
from gpuping.output import tables
from gpuping.output.terminal import PipeConsole
from scheduler.fleet.directory import Directory
from scheduler.fleet.lists.views import agent_view
from scheduler.policy import Policy

NOW = datetime(2026, 11, 23, tzinfo=UTC)
POLICY = Policy(
    base_seconds=900.0,
    max_seconds=86_400.0,
    multiplier=2.0,
    threshold_percent=99.0,
    recovery_pings=3,
    grace=True,
)


def device(sysfs: Path, address: str, vendor: str, kind: str) -> None:
    folder = sysfs / address
    folder.mkdir()
    (folder / "vendor").write_text(vendor + "\n")
    (folder / "class").write_text(kind + "\n")


def test_the_address_is_that_of_the_gpu_which_nvml_did_not_open(tmp_path):
    device(tmp_path, "0000:3b:00.0", "0x10de", "0x030200")
    device(tmp_path, "0000:3b:00.1", "0x10de", "0x040300")  # its audio
    device(tmp_path, "0000:5e:00.0", "0x10de", "0x030000")
    device(tmp_path, "0000:00:02.0", "0x8086", "0x030000")
    (tmp_path / "0000:ff:00.0").mkdir()  # says nothing
    assert unexplained_addresses(tmp_path, {"0000:3b:00.0"}) == ["0000:5e:00.0"]
    assert unexplained_addresses(tmp_path / "nowhere", ()) == []


def test_it_is_shown_as_down_and_counted_in_view_and_command_line():
    report = UptimeReport(
        agent_id="a",
        window=Window(since=NOW, until=NOW, seconds=0.0),
        uptime_percent=None,
        gpu_available=True,
        gpus=(GpuReport(uuid="GPU-1", index=0, name="H100", state="up"),),
        unopened=(UnopenedGpu(index=1, reason="lost", pci="0000:5e:00.0"),),
    )
    directory = Directory(POLICY)
    entry = AgentEntry(agent_id="a", registered_at=NOW, enrolled_at=NOW, expected_gpus=("GPU-1",))
    directory.apply_entry("a", entry, 1)
    tracked = directory.get("a")
    assert tracked
    view = agent_view(tracked, POLICY, NOW, report)
    shown = view.gpus[1]
    assert (shown.index, shown.state, shown.reasons) == (1, "down", ("lost",))
    assert (shown.name, shown.expected) == ("not opened, 0000:5e:00.0", False)
    expected = ExpectedGpus(agent_id="a", expected_gpus=("GPU-1",), changes=())
    console = PipeConsole(width=200)
    with console.capture() as capture:
        console.print(tables.gpus_headline(view))
        console.print(tables.gpus_table(view, expected))
    text = capture.get()
    assert "1/2 up" in text
    for word in ("lost", "0000:5e:00.0", "not opened"):
        assert word in text
