"""The units of the server side, and the script that installs them."""

import re
import shutil
import subprocess
from configparser import RawConfigParser
from pathlib import Path

import pytest

from gpuping.commands.options import app

FOLDER = Path(__file__).parents[2] / "deploy/systemd"
UNITS = sorted(FOLDER.glob("*.service"))
HARDENED = (
    *("NoNewPrivileges", "ProtectHome", "PrivateTmp", "PrivateDevices", "PrivateUsers"),
    *("ProtectClock", "ProtectKernelModules", "LockPersonality", "RestrictNamespaces"),
)


def lines_of(unit: Path) -> list[tuple[str, str]]:
    """The settings of [Service], some of which occur several times."""
    text = unit.read_text().split("[Service]")[1].split("[Install]")[0]
    pairs = []
    for line in text.splitlines():
        if "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            pairs.append((name, value))
    return pairs


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_every_unit_is_hardened_and_limited(unit: Path):
    settings = dict(lines_of(unit))
    # its keys must be out of reach of the other services
    own_user = "gpuping-enrolment" if unit.stem == "gpuping-enrolment" else "gpuping"
    assert settings["User"] == settings["Group"] == own_user
    assert settings["ProtectSystem"] == "strict"
    assert settings["CapabilityBoundingSet"] == ""
    assert all(settings[name] == "yes" for name in HARDENED)
    assert settings["MemoryMax"]
    assert settings["LimitNOFILE"]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_every_unit_runs_a_command_that_exists(unit: Path):
    import gpuping.cli  # noqa: F401  # registers the commands

    program, *arguments = dict(lines_of(unit))["ExecStart"].split()
    assert program.startswith("/opt/gpuping/bin/")
    if program.endswith("/gpuping"):
        app.parse_args([*arguments], print_error=False, exit_on_error=False)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_credentials_are_found_by_the_systemd_of_ubuntu_22_04(unit: Path):
    """Its version 249 does not know %d, leaves such a setting out, and the service has none."""
    loaded = {value.split(":")[0] for name, value in lines_of(unit) if name == "LoadCredential"}
    named = set()
    for name, value in lines_of(unit):
        if name != "Environment":
            continue
        for setting in value.split():
            path = setting.partition("=")[2]
            assert "%d" not in path
            if path.startswith("/run/credentials/%n/"):
                named.add(path.removeprefix("/run/credentials/%n/"))
    assert named <= loaded
    if loaded:
        assert {"nats.creds", "ca.pem"} <= named


def test_a_server_may_read_its_own_addresses():
    """Without netlink nats-server names no address, and clients never learn of its cluster."""
    families = dict(lines_of(FOLDER / "gpuping-nats.service"))["RestrictAddressFamilies"]
    assert "AF_NETLINK" in families.split()


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_service_that_hangs_or_is_frozen_is_started_again(unit: Path):
    settings = dict(lines_of(unit))
    if settings["Type"] == "oneshot":
        return  # it ends by itself
    if unit.stem == "gpuping-nats":
        assert "bus.server_watchdog" in settings["ExecStart"]
        return
    assert settings["Type"] == "notify"
    assert settings["NotifyAccess"] == "main"
    assert int(settings["WatchdogSec"]) <= 90
    assert settings["TimeoutStartSec"] == "infinity"  # it waits for the bus, and is then ready


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None,
    reason="no systemd-analyze here: it comes with the package systemd",
)
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_the_hardening_scores_at_most_one_and_a_half(unit: Path):
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", unit],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    score = re.search(r"exposure level for \S+: ([\d.]+)", done.stdout)
    assert score, done.stdout + done.stderr
    assert float(score[1]) <= 1.5


def test_units_come_back_and_streams_stand_before_services_start():
    for name in ("nats", "scheduler", "storage", "gateway", "enrolment", "alerts"):
        unit = FOLDER / f"gpuping-{name}.service"
        assert ("Restart", "always") in lines_of(unit)
        if name != "nats":
            assert "gpuping-layout.service" in unit.read_text()


def test_the_script_is_valid_and_the_sections_are_known():
    for script in (FOLDER / "install.sh", FOLDER.parent / "first-start.sh"):
        subprocess.run(["sh", "-n", script], check=True)
    for unit in UNITS:
        parser = RawConfigParser(strict=False)
        parser.read(unit)
        assert parser.sections() == ["Unit", "Service", "Install"]
