"""compose.yaml.

What it promises about the containers, and that Docker accepts it where Docker is.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]


@pytest.mark.parametrize("name", ["nats", "scheduler", "storage", "gateway"])
def test_every_service_is_locked_down(name: str) -> None:
    service = SERVICES[name]
    assert service["image"] == SERVICES["nats"]["image"], "all from one image"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["healthcheck"]["test"][0] == "CMD"
    assert "privileged" not in service
    assert "user" not in service, "the image's own user, which is not root"


def test_ports_are_published_on_loopback_only() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_the_gateway_asks_for_tokens() -> None:
    assert SERVICES["gateway"]["environment"]["GPUPING_TOKENS_FILE"] == "/run/secrets/tokens"
    assert "0.0.0.0" in SERVICES["gateway"]["command"]  # noqa: S104  # of the container


def test_what_must_survive_is_on_volumes() -> None:
    assert SERVICES["nats"]["volumes"] == ["nats:/data"]
    assert SERVICES["storage"]["volumes"] == ["storage:/data"]
    assert "sync_interval: always" in (ROOT / "deploy/nats.conf").read_text()


def test_the_image_does_not_run_as_root() -> None:
    lines = (ROOT / "deploy/Dockerfile").read_text().splitlines()
    assert "USER gpuping" in lines
    assert any("--require-hashes" in line for line in lines)


def test_every_settings_variable_exists() -> None:
    from bus.settings import Settings

    for service in SERVICES.values():
        assert set(service.get("environment", {})) <= set(Settings.__struct_fields__)


def test_nats_conf_is_accepted_by_the_server(tmp_path: Path) -> None:
    from bus.transport.embedded_server import find_binary

    configuration = tmp_path / "nats.conf"
    configuration.write_text(
        (ROOT / "deploy/nats.conf").read_text().replace("/data", str(tmp_path))
    )
    ended = subprocess.run(
        [find_binary(), "-t", "-c", configuration], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr


def has_compose() -> bool:
    docker = shutil.which("docker")
    asked = [docker, "compose", "version"]
    return (
        docker is not None
        and subprocess.run(asked, capture_output=True, check=False).returncode == 0
    )


@pytest.mark.docker
@pytest.mark.skipif(not has_compose(), reason="no docker compose here")
def test_docker_compose_accepts_it(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.toml"
    tokens.touch()
    command = ["docker", "compose", "-f", str(ROOT / "compose.yaml"), "config", "--quiet"]
    ended = subprocess.run(
        command, env=os.environ | {"GPUPING_TOKENS_FILE": str(tokens)}, check=False
    )
    assert ended.returncode == 0
