"""compose.yaml.

What it promises about the containers, and that Docker accepts it where Docker is.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from bus.settings import Settings
from bus.transport.embedded_server import find_binary

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
ONE_SHOTS = {"setup", "layout"}


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_service_is_locked_down(name: str) -> None:
    service = SERVICES[name]
    assert service["image"] == SERVICES["nats"]["image"], "all from one image"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert service["logging"]["options"] == {"max-size": "10m", "max-file": "3"}
    if name not in ONE_SHOTS:
        assert service["healthcheck"]["test"][0] == "CMD"
    assert "privileged" not in service
    assert "user" not in service, "the image's own user, which is not root"


def test_ports_are_published_on_loopback_only() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_the_gateway_asks_for_tokens() -> None:
    assert SERVICES["gateway"]["environment"]["GPUPING_TOKENS_FILE"] == "/tokens/tokens.toml"
    assert "tokens:/tokens:ro" in SERVICES["gateway"]["volumes"]
    assert "0.0.0.0" in SERVICES["gateway"]["command"]  # noqa: S104  # of the container


def test_what_must_survive_is_on_volumes() -> None:
    assert "nats:/data" in SERVICES["nats"]["volumes"]
    assert "storage:/data" in SERVICES["storage"]["volumes"]
    assert all(volume["name"].startswith("gpuping_") for volume in COMPOSE["volumes"].values())
    assert "sync_interval: always" in (ROOT / "deploy/nats.conf").read_text()


def test_the_image_does_not_run_as_root() -> None:
    lines = (ROOT / "deploy/Dockerfile").read_text().splitlines()
    assert "USER gpuping" in lines
    assert any("--require-hashes" in line for line in lines)


def test_every_settings_variable_exists() -> None:
    known = {*Settings.__struct_fields__, "SSL_CERT_FILE"}
    for name in SERVICES.keys() - ONE_SHOTS:
        assert set(SERVICES[name].get("environment", {})) <= known


def test_every_setting_of_the_server_side_is_passed_on() -> None:
    """Except those that the containers themselves decide."""
    decided = {
        *("NATS_CREDS", "NATS_SYSTEM_CREDS", "NATS_CONTEXT", "NATS_PORT", "GPUPING_DATA_DIR"),
        *("GPUPING_TOKENS_FILE", "GPUPING_TOKEN", "GATEWAY_HOST", "GATEWAY_PORT", "LOG_FORMAT"),
    }
    passed_on = set(COMPOSE["x-settings"])
    for name in Settings.__struct_fields__:
        if name not in decided and not name.startswith("AGENT_"):
            assert name in passed_on, name


def test_each_service_sees_its_own_credentials_only() -> None:
    for name in ("layout", "scheduler", "storage", "gateway"):
        mounted = [v for v in SERVICES[name]["volumes"] if isinstance(v, dict)]
        folders = {v["volume"]["subpath"] for v in mounted if v["target"] == "/creds"}
        assert folders == {name}
        assert all(v["read_only"] for v in mounted)
        assert not any(str(v).startswith("identity:") for v in SERVICES[name]["volumes"])


def first_start(root: Path) -> subprocess.CompletedProcess[str]:
    """Runs the one-shot service's script on a folder instead of the volumes."""
    for volume in ("identity", "trust", "creds", "tokens"):
        (root / volume).mkdir(exist_ok=True)
    programs = str(Path(sys.executable).parent)
    environment = os.environ | {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "SETUP_ROOT": str(root),
        "SETUP_RESOLVER_DIR": str(root / "resolver"),
        "SETUP_TRUST_DIR": str(root / "trust"),
    }
    return subprocess.run(
        ["sh", ROOT / "deploy/first-start.sh"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )


def server(root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    configuration = root / "nats.conf"
    configuration.write_text((ROOT / "deploy/nats.conf").read_text().replace("/data", str(root)))
    return subprocess.run(
        [find_binary(), *options, "-c", configuration],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def test_nats_conf_alone_opens_no_port(tmp_path: Path) -> None:
    ended = server(tmp_path)
    assert ended.returncode != 0
    assert "trust/server.conf" in ended.stderr


def test_a_first_start_makes_what_is_needed_once(tmp_path: Path) -> None:
    first = first_start(tmp_path)
    assert "shown once" in first.stdout
    assert server(tmp_path, "-t").returncode == 0
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    second = first_start(tmp_path)
    assert second.stdout == ""
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    for path in tmp_path.rglob("*.creds"):
        assert path.stat().st_mode & 0o077 == 0
    assert not list((tmp_path / "creds").rglob("*.seed"))


def has_compose() -> bool:
    docker = shutil.which("docker")
    asked = [docker, "compose", "version"]
    return (
        docker is not None
        and subprocess.run(asked, capture_output=True, check=False).returncode == 0
    )


@pytest.mark.docker
@pytest.mark.skipif(not has_compose(), reason="no docker compose here")
def test_docker_compose_accepts_it() -> None:
    command = ["docker", "compose", "-f", str(ROOT / "compose.yaml"), "config", "--quiet"]
    assert subprocess.run(command, check=False).returncode == 0
