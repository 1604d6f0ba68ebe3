"""The systemd unit and its installer."""

import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from agentd import host
from agentd.host.install import InstallError, check_host, install, uninstall
from bus import settings

UNIT = Path(host.__file__).with_name("gpuping-agentd.service")


def put(root, environ=None, **given):
    said = []
    environ = environ or {}
    install(settings.load(environ, **given), environ=environ, root=root, say=said.append)
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


def test_what_is_given_replaces_what_is_there_and_the_rest_stays(tmp_path):
    put(tmp_path, AGENT_ID="first", NATS_URL="tls://bus.example:4222")
    file = tmp_path / "etc/gpuping/agentd.env"
    file.write_text(file.read_text() + "# by hand\nAGENT_CHECKPOINT_INTERVAL=7\n")
    put(tmp_path, {"AGENT_ID": "second"})
    lines = file.read_text().splitlines()
    assert 'AGENT_ID="second"' in lines
    assert 'AGENT_ID="first"' not in lines
    assert {'NATS_URL="tls://bus.example:4222"', "# by hand", "AGENT_CHECKPOINT_INTERVAL=7"} < {
        *lines
    }
    assert f"kept {file}" in put(tmp_path)


def test_a_default_that_is_given_is_written_too(tmp_path):
    put(tmp_path, {"AGENT_GPU_CHECK_INTERVAL_SECONDS": "10"})
    put(tmp_path, {"AGENT_GPU_CHECK_INTERVAL_SECONDS": "5"})
    text = (tmp_path / "etc/gpuping/agentd.env").read_text()
    assert text.splitlines()[1:] == ['AGENT_GPU_CHECK_INTERVAL_SECONDS="5.0"']


def test_the_authority_of_the_bus_travels_with_the_service(tmp_path):
    authority = tmp_path / "ca.pem"
    authority.write_text("-----BEGIN CERTIFICATE-----\n")
    put(tmp_path / "root", NATS_CA=str(authority))
    unit = (tmp_path / "root/etc/systemd/system/gpuping-agentd.service").read_text()
    assert "LoadCredential=ca.pem:/etc/gpuping/agentd-ca.pem" in unit
    assert (tmp_path / "root/etc/gpuping/agentd-ca.pem").read_text() == authority.read_text()
    assert "NATS_CA" not in (tmp_path / "root/etc/gpuping/agentd.env").read_text()


def test_uninstalling_removes_the_unit_and_says_what_it_keeps(tmp_path):
    put(tmp_path, AGENT_ID="first")
    said = []
    uninstall(root=tmp_path, say=said.append)
    assert not (tmp_path / "etc/systemd/system/gpuping-agentd.service").exists()
    assert (tmp_path / "etc/gpuping/agentd.env").exists()
    assert said[-1].startswith(f"kept {tmp_path}/etc/gpuping/agentd.env")


def test_the_self_contained_file_puts_itself_where_the_service_finds_it(tmp_path, monkeypatch):
    program = tmp_path / "downloads/gpuping-agentd"
    program.parent.mkdir()
    program.write_bytes(b"\x7fELF")
    monkeypatch.setattr("sys.frozen", True, raising=False)
    monkeypatch.setattr("sys.executable", str(program))
    put(tmp_path)
    installed = tmp_path / "usr/local/bin/gpuping-agentd"
    assert installed.read_bytes() == program.read_bytes()
    assert stat.S_IMODE(installed.stat().st_mode) == 0o755
    unit = (tmp_path / "etc/systemd/system/gpuping-agentd.service").read_text()
    assert "ExecStart=/usr/local/bin/gpuping-agentd\n" in unit
    assert "NotifyAccess=all\n" in unit
    uninstall(root=tmp_path)
    assert not installed.exists()


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
@pytest.mark.parametrize("folder", ["plain", "of an 80% user"])
def test_systemd_understands_every_line(tmp_path, monkeypatch, folder):
    python = tmp_path / folder / "python"
    python.parent.mkdir()
    python.symlink_to(sys.executable)
    monkeypatch.setattr("sys.executable", str(python))
    put(tmp_path)
    unit = tmp_path / "etc/systemd/system/gpuping-agentd.service"
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False
    )
    assert done.stderr.replace("\n", "") == ""
