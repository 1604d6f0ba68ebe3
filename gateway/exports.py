"""History as files: CSV for spreadsheets, Parquet for engines; written while it is read, never whole in memory."""

import csv
import io
from collections.abc import AsyncIterator

from bus.questions import HistoryReply, HistoryRequest, Ping
from gateway.backends import Backends
from gateway.problems import ProblemError

MEDIA_TYPES = {"csv": "text/csv; charset=utf-8; header=present", "parquet": "application/vnd.apache.parquet"}
_SECONDS = ("up", "degraded", "down", "unknown", "excused")
_BEFORE = ("agent_id", "ping_seq", "pinged_at", "outcome", "reason", "verdict", "uptime_percent")
_AFTER = ("window_seconds", "consecutive_poor_uptime", "interval_minutes", "next_ping_at", "response_ms", "late_ms")
COLUMNS = (*_BEFORE, *(f"{name}_seconds" for name in _SECONDS), *_AFTER, "gpus")


async def csv_pieces(backends: Backends, first: HistoryReply) -> AsyncIterator[bytes]:
    """One line a ping, newest first. A failure on the way breaks the transfer off: half a file must not pass for it."""

    async def pieces() -> AsyncIterator[bytes]:
        yield _lines([COLUMNS])
        page = first
        while True:
            yield _lines([_row(ping) for ping in page.pings])
            if page.next_cursor is None:
                return
            question = HistoryRequest(hours=first.hours, cursor=page.next_cursor)
            page = await backends.history(first.agent_id, question)

    return pieces()


async def parquet_pieces(_backends: Backends, _first: HistoryReply) -> AsyncIterator[bytes]:
    """Parquet is written by storage and handed on piece by piece."""
    raise ProblemError(503, "storage does not hand out Parquet yet")


def _row(ping: Ping) -> tuple[object, ...]:
    seconds = [getattr(ping.seconds, name) for name in _SECONDS] if ping.seconds else [None] * len(_SECONDS)
    gpus = " ".join(f"{gpu.uuid}={gpu.state}" for gpu in ping.gpus)
    return (*_plain(ping, _BEFORE), *seconds, *_plain(ping, _AFTER), _harmless(gpus))


def _plain(ping: Ping, names: tuple[str, ...]) -> list[object]:
    values = (getattr(ping, name) for name in names)
    return [value.isoformat().replace("+00:00", "Z") if hasattr(value, "isoformat") else value for value in values]


def _harmless(text: str) -> str:
    """What an agent said must not become a formula in somebody's spreadsheet."""
    return f"'{text}" if text[:1] in {"=", "+", "-", "@", "\t", "\r"} else text


def _lines(rows: list[tuple[object, ...]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()
