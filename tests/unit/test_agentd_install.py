"""The systemd unit and its installer."""

import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from agentd import host
from agentd.host.install import InstallError, check_host, install
from bus import settings

UNIT = Path(host.__file__).with_name("gpuping-agentd.service")


def put(root, **given):
    said = []
    install(settings.load({}, **given), root=root, say=said.append)
    return said


def test_it_writes_unit_settings_and_credentials(tmp_path):
    creds = tmp_path / "agent-001.creds"
    creds.write_text("-----BEGIN NATS USER JWT-----\n")
    put(
        tmp_path / "root",
        NATS_CREDS=str(creds),
        AGENT_ID="agent-001",
        NATS_URL="tls://bus.example:4222",
    )
    kept = tmp_path / "root/etc/gpuping/agentd.creds"
    assert kept.read_text() == creds.read_text()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    environment = (tmp_path / "root/etc/gpuping/agentd.env").read_text().splitlines()[1:]
    assert sorted(environment) == ['AGENT_ID="agent-001"', 'NATS_URL="tls://bus.example:4222"']
    unit = (tmp_path / "root/etc/systemd/system/gpuping-agentd.service").read_text()
    assert "LoadCredential=nats.creds:/etc/gpuping/agentd.creds" in unit
    assert "NATS_CREDS=/run/credentials/gpuping-agentd.service/nats.creds" in unit


def test_without_credentials_the_unit_asks_for_none(tmp_path):
    put(tmp_path)
    unit = (tmp_path / "etc/systemd/system/gpuping-agentd.service").read_text()
    assert "LoadCredential" not in unit.split("[Service]")[1]
    assert "NATS_CREDS" not in unit.split("[Service]")[1]


needs_systemd_analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None,
    reason="no systemd-analyze here: it comes with the package systemd",
)


def test_settings_that_are_there_are_kept(tmp_path):
    put(tmp_path, AGENT_ID="first")
    said = put(tmp_path, AGENT_ID="second")
    assert "first" in (tmp_path / "etc/gpuping/agentd.env").read_text()
    assert any(line.startswith("kept ") for line in said)


def test_credentials_that_cannot_be_read_are_an_error_that_names_them(tmp_path):
    with pytest.raises(InstallError, match=r"absent\.creds"):
        put(tmp_path / "root", NATS_CREDS=str(tmp_path / "absent.creds"))


def test_it_is_refused_without_systemd(tmp_path):
    with pytest.raises(InstallError, match="systemd does not run here"):
        check_host(tmp_path / "nothing-runs-here")


@needs_systemd_analyze
def test_the_hardening_scores_at_most_one_and_a_half():
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(UNIT)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    score = re.search(r"exposure level for \S+: ([\d.]+)", done.stdout)
    assert score, done.stdout + done.stderr
    assert float(score[1]) <= 1.5


@needs_systemd_analyze
def test_systemd_understands_every_line(tmp_path):
    put(tmp_path)
    unit = tmp_path / "etc/systemd/system/gpuping-agentd.service"
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False
    )
    assert done.stderr.replace("\n", "") == ""
