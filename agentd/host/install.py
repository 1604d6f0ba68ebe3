"""`gpuping agentd --install`: agentd as a systemd service of this host, with the unit that lies beside this file.

What it writes: the unit, /etc/gpuping/agentd.env (settings, kept when it is there already) and, where NATS_CREDS
names a file, /etc/gpuping/agentd.creds, which only root can read: systemd hands it to the service (LoadCredential).
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from bus.errors import GpupingError
from bus.settings import Settings

UNIT = "gpuping-agentd.service"
_SHIPPED = Path(__file__).with_name(UNIT)
_HOMES = ("/home/", "/root/", "/run/user/", "/tmp/")  # noqa: S108  # where the hardened service cannot look
_NOT_FOR_THE_FILE = {
    "NATS_CREDS",
    "AGENT_STATE_DIR",
    "GPUPING_DATA_DIR",
    "LOG_FORMAT",
}  # the unit's own affair
_CREDENTIALS = ("LoadCredential=", "Environment=NATS_CREDS=")


class InstallError(GpupingError):
    """The service cannot be installed; the text says what to do instead."""


def install(
    settings: Settings, *, root: Path = Path("/"), say: Callable[[str], None] = print
) -> None:
    """Installs, enables and (re)starts the service. Raises InstallError. `root` other than / only writes files."""
    here = root == Path("/")
    if here:
        check_host()
    unit, environment, credentials = (
        root / "etc/systemd/system" / UNIT,
        root / "etc/gpuping/agentd.env",
        root / "etc/gpuping/agentd.creds",
    )
    if settings.NATS_CREDS:
        _write(credentials, _read(Path(settings.NATS_CREDS).expanduser()), 0o600, say)
    if environment.exists():
        say(f"kept {environment}")
    else:
        _write(environment, environment_file(settings), 0o600, say)
    _write(unit, unit_file(sys.executable, with_credentials=credentials.exists()), 0o644, say)
    if here:
        _start(say)


def unit_file(python: str, *, with_credentials: bool) -> str:
    """The shipped unit for this interpreter; without its two lines on credentials where there are none."""
    lines = []
    for line in _SHIPPED.read_text(encoding="utf-8").splitlines():
        if line.startswith("ExecStart="):
            lines.append(f"ExecStart={python} -P -m agentd")
        elif with_credentials or not line.startswith(_CREDENTIALS):
            lines.append(line)
    return "\n".join(lines) + "\n"


def environment_file(settings: Settings) -> str:
    """The settings that differ from their defaults, for EnvironmentFile=."""
    defaults = Settings()
    names = [name for name in Settings.__struct_fields__ if name not in _NOT_FOR_THE_FILE]
    given = {
        name: getattr(settings, name)
        for name in names
        if getattr(settings, name) != getattr(defaults, name)
    }
    lines = [f"{name}={_quoted(value)}" for name, value in given.items()]
    return (
        "\n".join(["# Settings of gpuping-agentd; then: systemctl restart gpuping-agentd", *lines])
        + "\n"
    )


def _quoted(value: object) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def check_host(running: Path = Path("/run/systemd/system")) -> None:
    """Raises InstallError where the service could not run. `running` is the folder that a running systemd makes."""
    if not running.is_dir():
        raise InstallError(
            f"systemd does not run here: start `{sys.executable} -m agentd` under what supervises here"
        )
    if os.geteuid() != 0:
        raise InstallError("installing a service needs root: sudo gpuping agentd --install")
    places = (sys.prefix, os.path.realpath(sys.executable), __file__)
    if hidden := [place for place in places if place.startswith(_HOMES)]:
        raise InstallError(
            f"{hidden[0]} is out of reach for the service, which runs as a user of its own without home folders: "
            "install gpuping where everyone can read it, as in "
            "`python3 -m venv /opt/gpuping && /opt/gpuping/bin/pip install 'gpuping[agentd]'`"
        )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InstallError(f"NATS_CREDS={str(path)!r}: {error}") from None


def _write(path: Path, content: str, mode: int, say: Callable[[str], None]) -> None:
    """Written beside and renamed, with its mode from the first byte on."""
    beside = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.unlink(missing_ok=True)
        with os.fdopen(
            os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8"
        ) as file:
            file.write(content)
        beside.chmod(mode)
        beside.replace(path)
    except OSError as error:
        raise InstallError(f"{path}: {error.strerror}") from None
    say(f"wrote {path}")


def _start(say: Callable[[str], None]) -> None:
    for command in (["daemon-reload"], ["enable", UNIT], ["restart", UNIT]):
        done = subprocess.run(  # noqa: S603  # fixed arguments
            ["systemctl", *command],  # noqa: S607  # where it lies differs by distribution
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise InstallError(
                f"systemctl {' '.join(command)}: {done.stderr.strip()}; see journalctl -u {UNIT}"
            )
    say(f"{UNIT} is running: journalctl -u {UNIT} shows its log")
