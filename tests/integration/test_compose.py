"""compose.yaml.

What it promises about the containers, and that Docker accepts it where Docker is.
"""

import asyncio
import json
import os
import re
import shutil
import ssl
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import yaml

from agentd.messaging import enrolment
from bus import server_watchdog, service_watchdog, settings
from bus.background import cancel_all
from bus.contract import subjects
from bus.contract.enrolment import NewTokenReply, NewTokenRequest
from bus.identity import claims, credentials
from bus.identity.authority import AuthorityError
from bus.identity.local import LocalIdentities
from bus.identity.tls import certificates
from bus.monitoring.service_metrics import USUAL_PORTS
from bus.settings import Settings
from bus.transport import connection, jetstream_api, layout
from bus.transport.embedded_server import find_binary
from bus.transport.micro_services import ask
from gpuping.client.bus_file import with_fleet_rules
from gpuping.commands.operate import creds as creds_command
from gpuping.commands.operate import hosts
from gpuping.enrolment import service as enrolment_service
from tests.identity import keeping_enrolments
from tests.ports import free_port
from tests.waiting import until

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
ONE_SHOTS = {"setup", "layout", "cluster-layout", "demo-setup", "gpu-setup"}
OF_OTHERS = {"prometheus", "grafana", "cluster"}  # images that are not ours
WITHOUT_CHECK = ONE_SHOTS | OF_OTHERS | {"demo-agents", "agentd", "cli", "authority"}


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_service_is_locked_down(name: str) -> None:
    service = SERVICES[name]
    if name in OF_OTHERS:
        assert re.search(r"@sha256:[0-9a-f]{64}}", service["image"]), "pinned by digest"
    else:
        assert service["image"] == SERVICES["nats"]["image"], "all from one image"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert service["logging"]["options"] == {"max-size": "10m", "max-file": "3"}
    if name not in WITHOUT_CHECK:
        assert service["healthcheck"]["test"][0] == "CMD"
    assert "privileged" not in service
    assert service.get("user", "nobody") == "nobody", "the image's own user, or nobody"


def test_ports_are_published_on_loopback_only() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_the_gateway_asks_for_tokens() -> None:
    for name in ("gateway", "gateway-1", "scheduler", "storage", "enrolment"):
        assert SERVICES[name]["environment"]["GPUPING_TOKENS_FILE"] == "/tokens/tokens.toml"
        assert "tokens:/tokens:ro" in SERVICES[name]["volumes"]
    assert "0.0.0.0" in SERVICES["gateway"]["command"]  # noqa: S104  # of the container


def test_what_must_survive_is_on_volumes() -> None:
    assert "nats:/data" in SERVICES["nats"]["volumes"]
    assert "storage:/data" in SERVICES["storage"]["volumes"]
    assert all(volume["name"].startswith("gpuping_") for volume in COMPOSE["volumes"].values())
    assert "sync_interval: always" in (ROOT / "deploy/nats.conf").read_text()


def test_no_container_leaves_a_volume_without_a_name() -> None:
    """Where an image declares a volume, every container that mounts nothing there makes a new one.

    `docker compose down` keeps those: eight more at each start of the single server.
    """
    assert "VOLUME" not in (ROOT / "deploy/Dockerfile").read_text()
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source = volume["source"] if isinstance(volume, dict) else volume.split(":")[0]
            assert source.startswith("./") or source in COMPOSE["volumes"]
    assert "/data:mode=1777" in SERVICES["cli"]["tmpfs"], (
        "`gpuping doctor` wants a data dir that it can write"
    )


@pytest.mark.parametrize("name", ["cli", "authority"])
def test_commands_know_that_the_cluster_has_three_copies(name: str) -> None:
    """Without that `gpuping doctor` warned of streams that are as they should be."""
    environment = SERVICES[name]["environment"]
    assert environment["NATS_URL"] == "${CLI_NATS_URL:-tls://nats:4222}"
    assert environment["GPUPING_REPLICAS"] == "${GPUPING_REPLICAS:-${CLI_NATS_URL:+3}}"


def test_a_plain_start_is_the_single_server_and_nothing_else() -> None:
    plain = {name for name, service in SERVICES.items() if "profiles" not in service}
    wanted = {"setup", "layout", "nats", "scheduler", "storage", "gateway", "enrolment", "alerts"}
    assert plain == wanted
    profiles = {profile for s in SERVICES.values() for profile in s.get("profiles", [])}
    assert profiles == {"demo", "gpu", "observe", "cluster", "tools"}


def test_the_cluster_has_three_servers_and_two_of_every_service() -> None:
    servers = ("n1", "n2", "n3")
    assert len({str(SERVICES[name]["volumes"]) for name in servers}) == 3
    for name in ("scheduler", "storage", "gateway"):
        for number in (1, 2):
            environment = SERVICES[f"{name}-{number}"]["environment"]
            assert environment["GPUPING_REPLICAS"] == "3"
            assert environment["NATS_URL"] == ",".join(f"tls://{n}:4222" for n in servers)
    assert SERVICES["storage-1"]["volumes"][0] != SERVICES["storage-2"]["volumes"][0]
    names = {SERVICES[f"storage-{n}"]["environment"]["STORAGE_NAME"] for n in (1, 2)}
    assert names == {"storage-1", "storage-2"}
    for name, service in SERVICES.items():
        if service.get("profiles") == ["cluster"]:
            depends_on = set(service["depends_on"])
            ours = {n for n in depends_on if SERVICES[n].get("profiles") == ["cluster"]}
            assert depends_on - ours <= {"setup"}, f"{name} starts nothing of the single server"


def test_a_nats_server_that_hangs_is_ended() -> None:
    """By its watchdog, which asks where the shipped configurations answer."""
    for name in ("nats", "n1", "n2", "n3"):
        assert SERVICES[name]["command"][:4] == [
            "python",
            "-m",
            server_watchdog.__name__,
            "nats-server",
        ]
    for configuration in ("deploy/nats.conf", "deploy/cluster/nats.conf"):
        text = (ROOT / configuration).read_text()
        assert f"http: {server_watchdog.HOST}:{server_watchdog.MONITOR_PORT}\n" in text
        assert f"store_dir: {server_watchdog.STORE}/" in text


def test_a_service_that_hangs_as_a_whole_is_ended() -> None:
    """Docker calls it unhealthy and does nothing; its watchdog asks the port that it answers."""
    ports = {
        "gateway": "8000",
        "agentd": f"${{AGENT_HTTP_PORT:-{Settings().AGENT_HTTP_PORT}}}",
    }
    for setting, usual_port in USUAL_PORTS.items():
        role = setting.removesuffix("_METRICS_PORT").lower()
        ports[role] = f"${{{setting}:-{usual_port}}}"
    watched = set()
    for name, service in SERVICES.items():
        command = service.get("command", [])
        if "gpuping" not in command or name in ONE_SHOTS | {"cli", "authority"}:
            continue
        role = command[command.index("gpuping") + 1]
        watchdog = ["python", "-m", service_watchdog.__name__, "--port", ports[role]]
        assert command[:5] == watchdog, name
        watched.add(role)
    assert watched == set(ports)


def test_files_that_are_mounted_exist() -> None:
    for config in COMPOSE["configs"].values():
        assert (ROOT / config["file"]).is_file()
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            if isinstance(volume, str) and volume.startswith("./"):
                assert (ROOT / volume.partition(":")[0]).is_dir(), "a folder, which is followed"


def test_grafana_asks_the_prometheus_that_is_there_and_knows_how_often_it_scrapes() -> None:
    provisioning = ROOT / "deploy/grafana/provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text())[
        "datasources"
    ]
    prometheus = yaml.safe_load((ROOT / "deploy/prometheus/compose.yml").read_text())
    assert source["url"] == "http://prometheus:9090"
    assert source["jsonData"]["timeInterval"] == prometheus["global"]["scrape_interval"]
    (provider,) = yaml.safe_load((provisioning / "dashboards/gpuping.yml").read_text())["providers"]
    folder = provider["options"]["path"].replace("/etc/gpuping/grafana", "deploy/grafana")
    assert len(list((ROOT / folder).glob("*.json"))) == 2
    environment = SERVICES["grafana"]["environment"]
    assert environment["GF_PATHS_PROVISIONING"] == "/etc/gpuping/grafana/provisioning"


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool here: it is Prometheus's")
def test_prometheus_accepts_its_configuration(tmp_path: Path) -> None:
    text = (ROOT / "deploy/prometheus/compose.yml").read_text()
    token = tmp_path / "token"
    token.write_text("gpuping_x")
    file = tmp_path / "prometheus.yml"
    rules = str(ROOT / "deploy/prometheus/gpuping.rules.yml")
    moved = text.replace("/run/gpuping/token", str(token)).replace("gpuping.rules.yml", rules)
    file.write_text(moved)
    checked = subprocess.run(
        ["promtool", "check", "config", file], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    for port in ("8000", "9321", "9322", "9323"):
        assert f"port: {port}" in text


def test_the_image_does_not_run_as_root() -> None:
    lines = (ROOT / "deploy/Dockerfile").read_text().splitlines()
    assert "USER gpuping" in lines
    assert any("--require-hashes" in line for line in lines)
    for image in ("PYTHON_IMAGE", "NODE_IMAGE"):
        pinned = re.compile(rf"ARG {image}=\S+@sha256:[0-9a-f]{{64}}")
        assert any(pinned.fullmatch(line) for line in lines)


def test_every_settings_variable_exists() -> None:
    known = {*Settings.__struct_fields__, "NVIDIA_DRIVER_CAPABILITIES"}
    for name in SERVICES.keys() - ONE_SHOTS - OF_OTHERS:
        assert set(SERVICES[name].get("environment", {})) <= known


def test_every_setting_of_the_server_side_is_passed_on() -> None:
    """Except those that the containers themselves decide."""
    decided = {
        *("NATS_CREDS", "NATS_SYSTEM_CREDS", "NATS_CONTEXT", "NATS_PORT", "GPUPING_DATA_DIR"),
        *("NATS_CA", "NATS_HOST", "NATS_LEAF_PORT", "NATS_BRIDGE_CREDS"),
        *("GPUPING_ALERTS_FILE", "GPUPING_TOKENS_FILE", "GPUPING_TOKEN"),
        *("GATEWAY_HOST", "GATEWAY_PORT", "LOG_FORMAT"),
    }
    passed_on = set(COMPOSE["x-settings"])
    for name in Settings.__struct_fields__:
        if name not in decided and not name.startswith("AGENT_"):
            assert name in passed_on, name


def test_every_setting_of_an_agent_is_passed_on() -> None:
    """Except those that make it something else: agent mode, and simulated GPUs."""
    passed_on = set(SERVICES["agentd"]["environment"])
    for name in Settings.__struct_fields__:
        if name.startswith("AGENT_") and name not in {"AGENT_MODE", "AGENT_SCENARIO"}:
            assert name in passed_on, name


def test_each_service_sees_its_own_credentials_only() -> None:
    for name in ("layout", "scheduler", "storage", "gateway", "enrolment", "alerts"):
        mounted = [v for v in SERVICES[name]["volumes"] if isinstance(v, dict)]
        folders = {v["volume"]["subpath"] for v in mounted if v["target"] == "/creds"}
        assert folders == {name}
        # enrolment notes in its folder whom it let in
        assert name == "enrolment" or all(v["read_only"] for v in mounted)
        assert not any(str(v).startswith("identity:") for v in SERVICES[name]["volumes"])


def first_start(root: Path) -> subprocess.CompletedProcess[str]:
    """Runs the one-shot service's script on a folder instead of the volumes."""
    for volume in ("identity", "trust", "creds", "tokens"):
        (root / volume).mkdir(exist_ok=True)
    programs = str(Path(sys.executable).parent)
    environment = os.environ | {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "NATS_PUBLIC_URL": "tls://bus.example.org:4222",
        "SETUP_ROOT": str(root),
        "SETUP_RESOLVER_DIR": str(root / "resolver"),
        "SETUP_TRUST_DIR": str(root / "trust"),
        "SETUP_STORE_DIR": str(root / "jetstream"),
    }
    return subprocess.run(
        ["sh", ROOT / "deploy/first-start.sh"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )


def wants_signed(root: Path) -> bool | None:
    """What a scheduler with these volumes makes of reports that nobody signed."""
    credentials_file = str(root / "creds/scheduler/scheduler.creds")
    return with_fleet_rules(settings.load({}, NATS_CREDS=credentials_file)).GPUPING_REQUIRE_SIGNED


def configured(root: Path, port: int) -> Path:
    """The shipped configuration, with another folder and other ports."""
    text = (ROOT / "deploy/nats.conf").read_text().replace("/data", str(root))
    text = text.replace("port: 4222", f"port: {port}").replace("http: 127.0.0.1:8222", "")
    configuration = root / "nats.conf"
    configuration.write_text(text)
    return configuration


def server(root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [find_binary(), *options, "-c", configured(root, 4222)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def test_nats_conf_alone_opens_no_port(tmp_path: Path) -> None:
    ended = server(tmp_path)
    assert ended.returncode != 0
    assert "trust/server.conf" in ended.stderr


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The volumes after the first start."""
    root = tmp_path_factory.mktemp("volumes")
    first = first_start(root)
    assert "shown once" in first.stdout
    return root


def test_a_first_start_makes_what_is_needed_once(prepared: Path) -> None:
    assert server(prepared, "-t").returncode == 0
    before = {p: p.read_bytes() for p in prepared.rglob("*") if p.is_file()}
    second = first_start(prepared)
    assert second.stdout == ""
    assert {p: p.read_bytes() for p in prepared.rglob("*") if p.is_file()} == before
    for path in prepared.rglob("*.creds"):
        assert path.stat().st_mode & 0o077 == 0
    signing = (prepared / "creds").rglob("*.seed")
    held = {str(path.relative_to(prepared / "creds")) for path in signing}
    assert held == {f"enrolment/identity/signing/{role}.seed" for role in ("agent", "bootstrap")}
    names = certificates.names_of(prepared / "trust/server.pem")
    assert names == ["nats", "bus.example.org", "localhost", "127.0.0.1", "::1"]
    assert wants_signed(prepared) is True
    certificate = ssl.create_default_context(cafile=prepared / "creds/gateway/ca.pem")
    assert certificate.get_ca_certs()[0]["subject"] == ((("commonName", "gpuping fleet"),),)


async def test_streams_of_a_version_without_identities_are_kept(tmp_path: Path) -> None:
    port = free_port()
    url = f"nats://127.0.0.1:{port}"
    old = tmp_path / "old.conf"
    old.write_text(f"port: {port}\njetstream {{ store_dir: {tmp_path / 'jetstream'} }}\n")
    server = await asyncio.create_subprocess_exec(find_binary(), "-c", old)
    async with connection.connected(settings.load({}, NATS_URL=url), "before") as client:
        await layout.ensure(client, settings.load({}), grow=True)
        await client.publish("$KV.gpuping.agent.a", b"of before")
        await client.flush()
    server.terminate()
    await server.wait()

    first = await asyncio.to_thread(first_start, tmp_path)
    assert "taken over" in first.stdout
    assert "taken over" not in (await asyncio.to_thread(first_start, tmp_path)).stdout
    assert wants_signed(tmp_path) is False, "its hosts have no keys yet"
    creds = tmp_path / "creds/layout"
    as_layout = settings.load(
        {},
        NATS_URL=f"tls://127.0.0.1:{port}",
        NATS_CREDS=str(creds / "layout.creds"),
        NATS_CA=str(creds / "ca.pem"),
    )
    configuration = configured(tmp_path, port)
    server = await asyncio.create_subprocess_exec(find_binary(), "-c", configuration)
    try:
        async with connection.connected(
            as_layout, "layout", inbox_prefix="_INBOX._layout"
        ) as client:
            await layout.ensure(client, as_layout, grow=True)
            info = await jetstream_api.call(client, f"STREAM.INFO.{subjects.BUCKET_STREAM}")
            assert info["state"]["messages"] == 1
    finally:
        server.terminate()
        await server.wait()


def test_credentials_of_before_accounts_of_their_own_are_replaced(
    prepared: Path, tmp_path: Path
) -> None:
    """In an earlier version every service lived in the fleet's account."""
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    identities = LocalIdentities.open(tmp_path / "identity")
    earlier = msgspec.structs.replace(identities.authority.fleet, role_accounts={})
    identities.authority._save(earlier)
    for role in ("storage", "scheduler"):
        identities.authority.issue(role, f"_{role}", tmp_path / f"creds/{role}/{role}.creds")
    before = (tmp_path / "creds/scheduler/scheduler.creds").read_text()
    first_start(tmp_path)
    fleet = LocalIdentities.open(tmp_path / "identity").authority.fleet
    storage = claims.decode(credentials.read(tmp_path / "creds/storage/storage.creds").token)
    assert storage.nats["issuer_account"] == fleet.role_accounts["storage"]
    assert (tmp_path / "creds/scheduler/scheduler.creds").read_text() == before


async def test_the_enrolment_service_lets_a_host_in_with_the_agents_signing_key_only(
    prepared: Path,
    tmp_path: Path,
) -> None:
    port = free_port()
    url = f"tls://127.0.0.1:{port}"
    creds = prepared / "creds"

    def settings_of(role: str) -> Settings:
        return settings.load(
            {},
            NATS_URL=url,
            NATS_PUBLIC_URL=f"tls://localhost:{port}",
            NATS_CREDS=str(creds / role / f"{role}.creds"),
            NATS_CA=str(creds / role / "ca.pem"),
            GPUPING_DATA_DIR=str(creds / role),
        )

    host = settings.load({}, AGENT_ID="gpu-1", GPUPING_DATA_DIR=str(tmp_path / "host"))
    configuration = configured(prepared, port)
    server = await asyncio.create_subprocess_exec(find_binary(), "-c", configuration)
    try:
        async with connection.connected(
            settings_of("layout"), "layout", inbox_prefix="_INBOX._layout"
        ) as client:
            await layout.ensure(client, settings_of("layout"), grow=True)
        authority = LocalIdentities.open(creds / "enrolment").authority
        with pytest.raises(AuthorityError):
            authority.account_token()
        with pytest.raises(AuthorityError):
            authority.mint("operator", "_x", authority.fleet.look_user, now=0, expires_at=None)
        async with (
            keeping_enrolments(settings_of("scheduler")),
            enrolment_service.running(settings_of("enrolment"), authority),
            connection.connected(
                settings_of("operator"), "operator", inbox_prefix="_INBOX._operator"
            ) as operator,
        ):
            reply = await ask(
                operator,
                subjects.NEW_ENROLMENT,
                NewTokenRequest(agent_id="gpu-1"),
                NewTokenReply,
                who="enrolment",
            )
            assert reply.address == f"localhost:{port}"
            enrolled = await enrolment.enroll(host, f"{reply.token}@tls://{reply.address}")
            # known to whoever revokes, though another service let the host in
            login_key = credentials.read(host.agent_state_dir / "gpu-1.creds").key.public
            found = await creds_command._enrolled_keys(settings_of("operator"), "gpu-1")
            assert found == {login_key}
            later = await _another_takes_its_place(prepared, host, port, tmp_path)
            after = await creds_command._enrolled_keys(settings_of("operator"), "gpu-1")
            second_key = credentials.read(later.agent_state_dir / "gpu-1.creds").key.public
            assert after == {second_key}
            assert second_key != login_key
            listed = await hosts.signing_hosts(operator, frozenset({login_key}))
            assert [one.agent_id for one in listed] == ["gpu-1"]
            assert (listed[0].login_key, listed[0].revoked) == (second_key, False)
            assert listed[0].recorded_key is not None
            host = later
        later = enrolment.with_enrolment(host)
        assert (enrolled.agent_id, later.NATS_URL) == ("gpu-1", f"tls://localhost:{port}")
        as_agent = msgspec.structs.replace(
            later, NATS_CREDS=str(host.agent_state_dir / "gpu-1.creds")
        )
        async with asyncio.timeout(60), connection.connected(as_agent, "agentd:gpu-1"):
            pass
        stranger = msgspec.structs.replace(as_agent, NATS_CA=None)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1), connection.connected(stranger, "agentd:gpu-1"):
                pass
    finally:
        server.terminate()
        await server.wait()


async def _another_takes_its_place(
    prepared: Path, host: Settings, port: int, tmp_path: Path
) -> Settings:
    """`docker compose run --rm authority gpuping enroll new --id gpu-1 --revoke`, and its line."""
    first = msgspec.structs.replace(
        enrolment.with_enrolment(host), NATS_CREDS=str(host.agent_state_dir / "gpu-1.creds")
    )
    closed = asyncio.Event()
    async with connection.connected(first, "agentd:gpu-1", inbox_prefix="_INBOX.gpu-1") as client:
        lost = asyncio.create_task(_is_lost(client, closed))
        command = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gpuping", "enroll", "new", "--id", "gpu-1", "--revoke"),
            env=os.environ
            | {
                "GPUPING_DATA_DIR": str(prepared / "identity"),
                "NATS_URL": f"tls://127.0.0.1:{port}",
                "NATS_CREDS": str(prepared / "creds/operator/operator.creds"),
                "NATS_CA": str(prepared / "creds/operator/ca.pem"),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        line, said = await command.communicate()
        assert b"revoked 1 credentials of gpu-1" in said, said
        async with asyncio.timeout(60):
            await closed.wait()
        lost.cancel()
    second = settings.load({}, AGENT_ID="gpu-1", GPUPING_DATA_DIR=str(tmp_path / "second"))
    where = line.decode().split("--enroll ")[1].strip()
    enrolled = await enrolment.enroll(second, where.replace("@", "@tls://"))
    assert enrolled.agent_id == "gpu-1"
    return second


async def _is_lost(client: connection.Client, closed: asyncio.Event) -> None:
    while client.is_connected:  # noqa: ASYNC110  # the client announces it to its owner only
        await asyncio.sleep(0.01)
    closed.set()


async def test_a_bus_without_tls_is_not_spoken_to_where_tls_is_expected() -> None:
    """Whoever stands between could leave `tls_required` out of the server's greeting."""
    said: list[bytes] = []

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        info = {"server_id": "X", "version": "2.15.1", "max_payload": 1024, "nonce": "n"}
        writer.write(b"INFO " + json.dumps(info).encode() + b"\r\n")
        said.append(await reader.read(100))
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    chosen = settings.load({}, NATS_URL=f"tls://127.0.0.1:{port}")
    connecting = asyncio.create_task(connection.connect(chosen, "x"))
    await until(lambda: said)
    assert not connecting.done()
    await cancel_all([connecting])
    server.close()
    assert not any(said)


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
    compose = ["docker", "compose", "-f", str(ROOT / "compose.yaml")]
    profiles = [f"--profile={name}" for name in ("demo", "gpu", "observe", "cluster")]
    for chosen in ([], profiles):
        command = [*compose, *chosen, "config", "--quiet"]
        assert subprocess.run(command, check=False).returncode == 0
