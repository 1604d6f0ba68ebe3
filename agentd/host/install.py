"""`gpuping agentd --install`: agentd as a systemd service, with the unit beside this file.

It writes the unit, /etc/gpuping/agentd.env (the settings; an existing file is kept) and, where
NATS_CREDS names a file, /etc/gpuping/agentd.creds. Only root can read those credentials: systemd
hands them to the service (LoadCredential).
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from bus.errors import GpupingError
from bus.settings import Settings

UNIT = "gpuping-agentd.service"
_SHIPPED_UNIT = Path(__file__).with_name(UNIT)
# The hardened service cannot see files below these folders.
_HIDDEN_FOLDERS = ("/home/", "/root/", "/run/user/", "/tmp/")  # noqa: S108  # only compared with
# The unit itself decides these settings.
_SET_BY_UNIT = frozenset({"NATS_CREDS", "AGENT_STATE_DIR", "GPUPING_DATA_DIR", "LOG_FORMAT"})
_CREDENTIAL_LINES = ("LoadCredential=", "Environment=NATS_CREDS=")


class InstallError(GpupingError):
    """The service cannot be installed; the text says what to do instead."""


def install(
    settings: Settings,
    *,
    root: Path = Path("/"),
    say: Callable[[str], None] = print,
) -> None:
    """Installs, enables and (re)starts the service. Raises InstallError.

    With a `root` other than / it only writes the files.
    """
    on_this_host = root == Path("/")
    if on_this_host:
        check_host()
    unit = root / "etc/systemd/system" / UNIT
    environment = root / "etc/gpuping/agentd.env"
    credentials = root / "etc/gpuping/agentd.creds"
    if settings.NATS_CREDS:
        _write(
            credentials,
            _read(Path(settings.NATS_CREDS).expanduser()),
            0o600,
            say,
        )
    if environment.exists():
        say(f"kept {environment}")
    else:
        _write(
            environment,
            environment_file(settings),
            0o600,
            say,
        )
    _write(
        unit,
        unit_file(sys.executable, with_credentials=credentials.exists()),
        0o644,
        say,
    )
    if on_this_host:
        _start(say)


def unit_file(python: str, *, with_credentials: bool) -> str:
    """The shipped unit for this interpreter; credential lines stay only `with_credentials`."""
    lines = []
    for line in _SHIPPED_UNIT.read_text(encoding="utf-8").splitlines():
        if line.startswith("ExecStart="):
            lines.append(f"ExecStart={python} -P -m agentd")
        elif with_credentials or not line.startswith(_CREDENTIAL_LINES):
            lines.append(line)
    return "\n".join(lines) + "\n"


def environment_file(settings: Settings) -> str:
    """The settings that differ from their defaults, for EnvironmentFile=."""
    defaults = Settings()
    lines = ["# Settings of gpuping-agentd; then: systemctl restart gpuping-agentd"]
    for name in Settings.__struct_fields__:
        value = getattr(settings, name)
        if name not in _SET_BY_UNIT and value != getattr(defaults, name):
            lines.append(f"{name}={_quoted(value)}")
    return "\n".join(lines) + "\n"


def _quoted(value: object) -> str:
    text = str(value)
    if isinstance(value, bool):
        text = text.lower()
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def check_host(running: Path = Path("/run/systemd/system")) -> None:
    """Raises InstallError where the service could not run.

    `running` is the folder that a running systemd makes.
    """
    if not running.is_dir():
        raise InstallError(
            "systemd does not run here: "
            f"start `{sys.executable} -m agentd` under the supervisor of this host"
        )
    if os.geteuid() != 0:
        raise InstallError("installing a service needs root: sudo gpuping agentd --install")
    for path in (sys.prefix, os.path.realpath(sys.executable), __file__):
        if path.startswith(_HIDDEN_FOLDERS):
            raise InstallError(
                f"{path} is out of reach for the service, "
                "which runs as a user of its own without home folders: "
                "install gpuping where everyone can read it, as in "
                "`python3 -m venv /opt/gpuping && /opt/gpuping/bin/pip install 'gpuping[agentd]'`"
            )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InstallError(f"NATS_CREDS={str(path)!r}: {error}") from None


def _write(
    path: Path,
    content: str,
    mode: int,
    say: Callable[[str], None],
) -> None:
    """Writes a new file beside it and renames it. The file has its mode from the first byte on."""
    beside = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.unlink(missing_ok=True)
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
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
