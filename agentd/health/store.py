"""The files of the health rules: the operator's XID table, and the memory across restarts."""

import contextlib
from pathlib import Path

import msgspec
import structlog

from agentd.health import rules
from agentd.health.judgement import HealthMemory
from bus.errors import SettingsError

log = structlog.get_logger("agentd.health.store")


def load_xid_table(path: str | None) -> rules.XidTable:
    """The built-in table, changed by the file AGENT_XID_TABLE.

    Raises SettingsError, in one line.
    """
    if path is None:
        return rules.DEFAULT_XIDS
    try:
        return rules.xid_table(Path(path).expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        raise _refusal(path, error.strerror or "cannot be read") from None
    except ValueError as error:
        raise _refusal(path, str(error)) from None


def _refusal(path: str, why: str) -> SettingsError:
    return SettingsError(f"AGENT_XID_TABLE={path!r}: {' '.join(why.split())}")


def load_memory(path: Path, boot_id: str) -> HealthMemory:
    """What was remembered in this boot. It is empty after a reboot, which resets GPUs.

    A corrupt file is set aside, and an error is logged.
    """
    empty = HealthMemory(boot_id=boot_id)
    try:
        memory = msgspec.json.decode(path.read_bytes(), type=HealthMemory)
    except FileNotFoundError:
        return empty
    except OSError as error:
        log.error(
            "health_memory_read_failed",
            file=str(path),
            detail=str(error),
        )
        return empty
    except ValueError as error:
        aside = path.with_suffix(".corrupt")
        log.error(
            "health_memory_corrupt",
            file=str(path),
            set_aside=str(aside),
            detail=str(error),
        )
        with contextlib.suppress(OSError):
            path.replace(aside)
        return empty
    if memory.boot_id != boot_id:
        return empty
    return memory


def save_memory(path: Path, memory: HealthMemory) -> None:
    """Writes a new file and renames it. There is no fsync: a power cut resets the GPUs anyway."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(".new")
        beside.write_bytes(msgspec.json.encode(memory))
        beside.replace(path)
    except OSError as error:  # a full disk must not stop the checks
        log.error(
            "health_memory_write_failed",
            file=str(path),
            detail=str(error),
        )
