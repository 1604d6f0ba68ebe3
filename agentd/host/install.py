"""`gpuping agentd --install`: agentd as a systemd service, with the unit beside this file.

It writes the unit and /etc/gpuping/agentd.env (the settings) and, where NATS_CREDS names a file,
/etc/gpuping/agentd.creds. Only root can read those credentials: systemd hands them to the service
(LoadCredential). It may be run again: the unit is upgraded, settings that are given now replace
those of before, and everything else in the file of settings stays.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from bus.errors import GpupingError
from bus.settings import Settings

UNIT = "gpuping-agentd.service"
STATE_DIR = Path("/var/lib/gpuping")
_SHIPPED_UNIT = Path(__file__).with_name(UNIT)
# Where the self-contained file is put.
_PROGRAM = Path("usr/local/bin/gpuping-agentd")
# The hardened service cannot see files below these folders.
_HIDDEN_FOLDERS = ("/home/", "/root/", "/run/user/", "/tmp/")  # noqa: S108  # only compared with
# The unit itself decides these settings.
_SET_BY_UNIT = frozenset(
    {"NATS_CREDS", "NATS_CA", "AGENT_STATE_DIR", "GPUPING_DATA_DIR", "LOG_FORMAT"}
)
_PLAIN_PATH = re.compile(r"[\w/.+-]+", re.ASCII)  # needs no quotes in a unit
_HEADING = "# Settings of gpuping-agentd; then: systemctl restart gpuping-agentd"


class InstallError(GpupingError):
    """The service cannot be installed; the text says what to do instead."""


class _Files(NamedTuple):
    """What belongs to the service under a root folder."""

    unit: Path
    settings: Path
    credentials: Path
    authority: Path
    program: Path

    @classmethod
    def under(cls, root: Path) -> "_Files":
        """The files of a service that runs on this root folder."""
        return cls(
            unit=root / "etc/systemd/system" / UNIT,
            settings=root / "etc/gpuping/agentd.env",
            credentials=root / "etc/gpuping/agentd.creds",
            authority=root / "etc/gpuping/agentd-ca.pem",
            program=root / _PROGRAM,
        )


Say = Callable[[str], None]


def install(
    settings: Settings,
    *,
    environ: Mapping[str, str] = os.environ,
    root: Path = Path("/"),
    say: Say = print,
) -> None:
    """Installs or upgrades, enables and (re)starts the service. Raises InstallError.

    Settings that `environ` names are written even where they have their default value. With a
    `root` other than / it only writes the files.
    """
    on_this_host = root == Path("/")
    if on_this_host:
        check_host()
    files = _Files.under(root)
    command = f"{_program_in_unit(sys.executable)} -P -m agentd"
    if _is_self_contained():
        _copy_program(Path(sys.executable), files.program, say)
        command = str(Path("/") / _PROGRAM)
    if settings.NATS_CREDS:
        _write(files.credentials, _read("NATS_CREDS", settings.NATS_CREDS), 0o600, say)
    if settings.NATS_CA:
        _write(files.authority, _read("NATS_CA", settings.NATS_CA), 0o600, say)
    _write_settings(files.settings, settings, environ, say)
    _write(files.unit, unit_file(command, _loaded(files)), 0o644, say)
    if on_this_host:
        _systemctl("daemon-reload")
        _systemctl("enable", UNIT)
        _systemctl("restart", UNIT)
        say(f"{UNIT} is running: journalctl -u {UNIT} shows its log")


def uninstall(*, root: Path = Path("/"), say: Say = print) -> None:
    """Stops the service and removes its unit and program. Raises InstallError.

    Settings, credentials and the ledger stay, and it says where they are.
    """
    on_this_host = root == Path("/")
    files = _Files.under(root)
    if on_this_host:
        _check_root()
        if files.unit.exists():
            _systemctl("disable", "--now", UNIT)
    for path in (files.unit, files.program):
        if path.exists():
            path.unlink()
            say(f"removed {path}")
    if on_this_host:
        _systemctl("daemon-reload")
    kept = [files.settings, files.credentials, files.authority, root / "var/lib/gpuping"]
    left = [str(path) for path in kept if path.exists()]
    if left:
        say(f"kept {', '.join(left)}: delete them if this host does not come back")


def hand_over_state(state_dir: Path) -> None:
    """Gives what root has written into the state dir of the service to the service's user.

    Where the folder is root's, systemd does so itself at the first start.
    """
    if not state_dir.is_dir():
        return
    owner = state_dir.stat()
    for path in state_dir.iterdir():
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def unit_file(command: str, loaded: Iterable[str]) -> str:
    """The shipped unit with this command. `loaded` names the credentials that there are."""
    lines = []
    for line in _SHIPPED_UNIT.read_text(encoding="utf-8").splitlines():
        if line.startswith("ExecStart="):
            lines.append(f"ExecStart={command}")
        elif line.startswith("NotifyAccess=") and _is_self_contained():
            # The file unpacks itself and runs in a child of its first process.
            lines.append("NotifyAccess=all")
        elif not _is_left_out(line, loaded):
            lines.append(line)
    return "\n".join(lines) + "\n"


def _is_left_out(line: str, loaded: Iterable[str]) -> bool:
    """Whether the line is about credentials that this host does not have."""
    for setting, name in (("NATS_CREDS", "nats.creds"), ("NATS_CA", "ca.pem")):
        is_about = line.startswith((f"LoadCredential={name}:", f"Environment={setting}="))
        if is_about and name not in loaded:
            return True
    return False


def _loaded(files: _Files) -> list[str]:
    loaded = []
    if files.credentials.exists():
        loaded.append("nats.creds")
    if files.authority.exists():
        loaded.append("ca.pem")
    return loaded


def _write_settings(
    path: Path,
    settings: Settings,
    environ: Mapping[str, str],
    say: Say,
) -> None:
    given = given_settings(settings, environ)
    if not path.exists():
        lines = [_HEADING, *(f"{name}={value}" for name, value in given.items())]
        _write(path, "\n".join(lines) + "\n", 0o600, say)
        return
    before = path.read_text(encoding="utf-8")
    after = with_settings(before, given)
    if after == before:
        say(f"kept {path}")
    else:
        _write(path, after, 0o600, say)


def given_settings(settings: Settings, environ: Mapping[str, str]) -> dict[str, str]:
    """The settings that were given by option or environment, quoted for EnvironmentFile=."""
    defaults = Settings()
    given = {}
    for name in Settings.__struct_fields__:
        value = getattr(settings, name)
        is_given = bool(environ.get(name)) or value != getattr(defaults, name)
        if is_given and name not in _SET_BY_UNIT:
            given[name] = _quoted(value)
    return given


def with_settings(text: str, given: Mapping[str, str]) -> str:
    """The file of settings with these values; lines about others stay as they are."""
    lines = []
    for line in text.splitlines():
        if line.partition("=")[0].strip() not in given:
            lines.append(line)
    lines += [f"{name}={value}" for name, value in given.items()]
    return "\n".join(lines) + "\n"


def _quoted(value: object) -> str:
    text = str(value)
    if isinstance(value, bool):
        text = text.lower()
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _program_in_unit(path: str) -> str:
    """A program's path as ExecStart= has it, where `%` begins a specifier."""
    if _PLAIN_PATH.fullmatch(path):
        return path
    return _quoted(path.replace("%", "%%"))


def check_host(running: Path = Path("/run/systemd/system")) -> None:
    """Raises InstallError where the service could not run.

    `running` is the folder that a running systemd makes.
    """
    if not running.is_dir():
        raise InstallError(
            "systemd does not run here: "
            f"start `{sys.executable} -m agentd` under the supervisor of this host"
        )
    _check_root()
    if _is_self_contained():
        return
    for path in (sys.prefix, os.path.realpath(sys.executable), __file__):
        if path.startswith(_HIDDEN_FOLDERS):
            raise InstallError(
                f"{path} is out of reach for the service, "
                "which runs as a user of its own without home folders: "
                "install gpuping where everyone can read it, as in `python3 -m venv /opt/gpuping "
                "&& /opt/gpuping/bin/pip install '.[agentd]'` in a clone"
            )


def _check_root() -> None:
    if os.geteuid() != 0:
        raise InstallError("a service of systemd is root's business: sudo gpuping agentd ...")


def _is_self_contained() -> bool:
    """Whether this is the file that `make agentd-binary` makes."""
    return bool(getattr(sys, "frozen", False))


def _read(setting: str, value: str) -> str:
    path = Path(value).expanduser()
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InstallError(f"{setting}={str(path)!r}: {error}") from None


def _copy_program(
    source: Path,
    target: Path,
    say: Say,
) -> None:
    """Copies beside the program that may be running, and renames."""
    if target.exists() and source.samefile(target):
        return
    beside = target.with_name(target.name + ".new")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, beside)
        beside.chmod(0o755)
        beside.replace(target)
    except OSError as error:
        raise InstallError(f"{target}: {error.strerror}") from None
    say(f"wrote {target}")


def _write(
    path: Path,
    content: str,
    mode: int,
    say: Say,
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


def _systemctl(*arguments: str) -> None:
    done = subprocess.run(  # noqa: S603  # fixed arguments
        ["systemctl", *arguments],  # noqa: S607  # where it lies differs by distribution
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise InstallError(
            f"systemctl {' '.join(arguments)}: {done.stderr.strip()}; see journalctl -u {UNIT}"
        )
