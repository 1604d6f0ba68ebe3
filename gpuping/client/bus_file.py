"""`<data-dir>/bus.json`: `gpuping up` writes it, and commands find the running system by it."""

import os
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from msgspec import Struct

from bus.errors import SettingsError
from bus.identity import fleet_file, local
from bus.identity.fleet_file import Fleet
from bus.identity.local import LocalIdentities
from bus.identity.roles import RoleName
from bus.private_files import open_private
from bus.settings import Settings
from gpuping.client.process_times import start_ticks

DEMO_FOLDER = "demo"  # of a data dir: the demo's own, apart from everything else


class BusFile(Struct, kw_only=True, frozen=True):
    """What `bus.json` holds.

    `pid` and `process_started` (clock ticks since boot) identify one process, even after the pid
    was reused.
    """

    schema_version: int = 1
    pid: int
    process_started: int
    started_at: datetime
    nats_url: str
    gateway_url: str
    operator_creds: str | None = None


def write(
    data_dir: Path,
    started_at: datetime,
    nats_url: str,
    gateway_url: str,
    *,
    operator_creds: str | None,
) -> None:
    """Writes the file for this process. Only its owner may read it; it appears whole."""
    pid = os.getpid()
    file = BusFile(
        pid=pid,
        process_started=start_ticks(pid) or 0,
        started_at=started_at,
        nats_url=nats_url,
        gateway_url=gateway_url,
        operator_creds=operator_creds,
    )
    text = msgspec.json.format(msgspec.json.encode(file))
    unfinished = data_dir / f".bus.json.{pid}"
    unfinished.unlink(missing_ok=True)  # of a killed process that had the same pid
    with open_private(unfinished, os.O_EXCL) as written:
        written.write(text + b"\n")
    unfinished.replace(_path(data_dir))


def remove(data_dir: Path) -> None:
    """After this, commands say that nothing runs here."""
    _path(data_dir).unlink(missing_ok=True)


def find(data_dir: Path) -> BusFile | None:
    """The system that runs on this data dir. Returns None when the file's writer has ended."""
    try:
        file = msgspec.json.decode(_path(data_dir).read_bytes(), type=BusFile)
    except (OSError, msgspec.DecodeError):
        return None
    if start_ticks(file.pid) != file.process_started:
        return None
    return file


def is_stopped(data_dir: Path) -> bool:
    """Whether the data dir belongs to a system that does not run now.

    A bus at the default address is then somebody else's, and must not be asked instead.
    """
    return (data_dir / "nats").is_dir() and find(data_dir) is None


def is_in_use(data_dir: Path) -> bool:
    """Whether the data dir has streams or identities of its own."""
    return (data_dir / "nats").is_dir() or local.exist(data_dir)


def with_demo_alone(settings: Settings) -> Settings:
    """The settings with the demo's data dir, where the demo is all that was ever started in theirs.

    So `gpuping top` shows what `gpuping up --demo` runs, and never instead of a real fleet.
    """
    if settings.NATS_URL or settings.NATS_CONTEXT or is_in_use(settings.data_dir):
        return settings
    demo_dir = settings.data_dir / DEMO_FOLDER
    if find(demo_dir) is None:
        return settings
    return msgspec.structs.replace(settings, GPUPING_DATA_DIR=str(demo_dir))


def with_running_bus(settings: Settings, role: RoleName = "operator") -> Settings:
    """The settings with the address of the running system, and credentials for `role` on it.

    NATS_URL and NATS_CONTEXT come first. Without them, `bus.json` fills NATS_URL in, and NATS_CREDS
    where it is not set and the data dir has identities.
    """
    if settings.NATS_URL or settings.NATS_CONTEXT:
        return with_role_credentials(settings, role)
    found = find(settings.data_dir)
    if found is None:
        return with_role_credentials(settings, role)
    settings = msgspec.structs.replace(settings, NATS_URL=found.nats_url)
    if settings.NATS_CREDS is not None or found.operator_creds is None:
        return with_role_credentials(settings, role)
    identities = LocalIdentities.open(settings.data_dir)
    if identities.tls_files.authority.exists():
        settings = msgspec.structs.replace(
            settings, NATS_CA=str(identities.tls_files.authority.absolute())
        )
    settings = with_rules_of(settings, identities.authority.fleet)
    if role == "agent":
        creds = identities.agent(settings.agent_id)
    else:
        creds = identities.service(role)
    bridge_creds = settings.NATS_BRIDGE_CREDS
    if role == "gateway" and bridge_creds is None and settings.GATEWAY_BRIDGE_NETWORKS is not None:
        bridge_creds = str(identities.service("bridge"))
    return msgspec.structs.replace(
        settings,
        NATS_CREDS=str(creds),
        NATS_BRIDGE_CREDS=bridge_creds,
    )


def with_fleet_rules(settings: Settings) -> Settings:
    """The settings of a scheduler, with what its fleet says where they say nothing.

    Beside its credentials may be the public half of the fleet (`fleet.json`), as
    deploy/first-start.sh puts it there. Raises SettingsError when that cannot be read.
    """
    if settings.GPUPING_REQUIRE_SIGNED is not None or settings.NATS_CREDS is None:
        return settings
    path = Path(settings.NATS_CREDS).expanduser().parent / fleet_file.FLEET
    try:
        fleet = fleet_file.decode(path.read_bytes())
    except FileNotFoundError:
        return settings
    except (OSError, msgspec.DecodeError) as error:
        raise SettingsError(f"{path}: expected the public half of the fleet: {error}") from None
    return with_rules_of(settings, fleet)


def with_rules_of(settings: Settings, fleet: Fleet) -> Settings:
    """The settings with what a fleet says of unsigned reports, where they say nothing."""
    if settings.GPUPING_REQUIRE_SIGNED is not None:
        return settings
    until = settings.GPUPING_UNSIGNED_UNTIL
    if until is None and fleet.unsigned_until is not None:
        until = datetime.fromtimestamp(fleet.unsigned_until, UTC)
    return msgspec.structs.replace(
        settings, GPUPING_REQUIRE_SIGNED=fleet.requires_signed, GPUPING_UNSIGNED_UNTIL=until
    )


def with_role_credentials(
    settings: Settings,
    role: RoleName,
    agent_id: str | None = None,
) -> Settings:
    """The settings with the credentials file of one role, where NATS_CREDS names a folder.

    In the folder are `ROLE.creds` for services and the operator, and `agent-ID.creds` for agents.
    """
    if settings.NATS_CREDS is None:
        return settings
    folder = Path(settings.NATS_CREDS).expanduser()
    if not folder.is_dir():
        return settings
    name: str = role
    if role == "agent":
        name = f"agent-{agent_id or settings.agent_id}"
    bridge_creds = settings.NATS_BRIDGE_CREDS
    if role == "gateway" and bridge_creds is None and (folder / "bridge.creds").exists():
        bridge_creds = str(folder / "bridge.creds")
    return msgspec.structs.replace(
        settings,
        NATS_CREDS=str(folder / f"{name}.creds"),
        NATS_BRIDGE_CREDS=bridge_creds,
    )


def has_role_credentials(settings: Settings, role: RoleName) -> bool:
    """False where NATS_CREDS names a folder that has no credentials of this role."""
    found = with_role_credentials(settings, role)
    if found.NATS_CREDS is None or found.NATS_CREDS == settings.NATS_CREDS:
        return True
    return Path(found.NATS_CREDS).exists()


def _path(data_dir: Path) -> Path:
    return data_dir / "bus.json"
