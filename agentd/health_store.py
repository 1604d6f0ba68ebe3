"""What health keeps on disk, or reads from it: the operator's XID table, and the memory across restarts."""

from pathlib import Path

from agentd import health
from bus.errors import SettingsError


def load_xid_table(path: str | None) -> health.XidTable:
    """AGENT_XID_TABLE over the built-in table. Raises SettingsError, in one line."""
    if path is None:
        return health.DEFAULT_XIDS
    try:
        return health.xid_table(Path(path).expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        raise _refusal(path, error.strerror or "cannot be read") from None
    except ValueError as error:
        raise _refusal(path, str(error)) from None


def _refusal(path: str, why: str) -> SettingsError:
    return SettingsError(f"AGENT_XID_TABLE={path!r}: {' '.join(why.split())}")
