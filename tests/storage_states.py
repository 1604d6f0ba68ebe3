"""States as the scheduler writes them, for tests of storage: made by the real message types."""

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import nats.js.errors
from msgspec import Raw

from bus.contract import subjects
from bus.contract.messages import (
    AgentState,
    GpuReport,
    Incident,
    Outcome,
    Seconds,
    UptimeReport,
    Window,
    encode,
)
from bus.contract.questions import StorageStats
from bus.errors import UnavailableError
from bus.transport import micro_services
from bus.transport.connection import Client
from tests.waiting import until_answered

START = datetime(2026, 11, 1, tzinfo=UTC)
HEALTHY = Seconds(up=900.0)
GPU = "GPU-11111111-2222-3333-4444-555555555555"


def gpu(seconds: Seconds, **about: Any) -> GpuReport:
    given = {
        "uuid": GPU,
        "index": 0,
        "name": "RTX 4090",
        "state": "up",
        "uptime_percent": percent(seconds),
    } | about
    return GpuReport(seconds=seconds, **given)


def percent(seconds: Seconds) -> float | None:
    judged = seconds.up + seconds.degraded + seconds.down + seconds.unknown
    return min(100.0, 100.0 * (seconds.up + seconds.degraded) / judged) if judged else None


def total(seconds: Seconds) -> float:
    return round(
        seconds.up + seconds.degraded + seconds.down + seconds.unknown + seconds.excused, 3
    )


def report(
    agent_id: str,
    until: datetime,
    seconds: Seconds,
    gpus: tuple[GpuReport, ...] | None = None,
    incidents: tuple[Incident, ...] = (),
) -> UptimeReport:
    window = Window(
        since=until - timedelta(seconds=total(seconds)),
        until=until,
        seconds=total(seconds),
        mark="m",
    )
    return UptimeReport(
        agent_id=agent_id,
        boot_id="boot",
        session_id="session",
        window=window,
        uptime_percent=percent(seconds),
        seconds=seconds,
        gpu_available=True,
        gpus=(gpu(seconds),) if gpus is None else gpus,
        incidents=incidents,
        reported_at=until,
    )


def state(
    agent_id: str,
    number: int,
    pinged_at: datetime,
    seconds: Seconds | None = HEALTHY,
    *,
    gpus: tuple[GpuReport, ...] | None = None,
    incidents: tuple[Incident, ...] = (),
    until: datetime | None = None,
    **about: Any,
) -> AgentState:
    """An answered, good ping; without `seconds` a miss."""
    last: dict[str, Any] = {"outcome": "missed", "verdict": "poor", "reason": "timeout"}
    if seconds is not None:
        given = report(
            agent_id, until or pinged_at + timedelta(milliseconds=3), seconds, gpus, incidents
        )
        last = {
            "outcome": "answered",
            "verdict": "good",
            "uptime_percent": percent(seconds),
            "seconds": seconds,
        }
        last |= {
            "window_seconds": total(seconds),
            "response_ms": 3.25,
            "report": Raw(encode(given)),
        }
    return AgentState(
        agent_id=agent_id,
        ping_seq=number,
        interval_seconds=900.0,
        next_ping_at=pinged_at + timedelta(seconds=900),
        last=Outcome(
            ping_id=f"{agent_id}-{number}",
            ping_seq=number,
            pinged_at=pinged_at,
            late_ms=12.5,
            **(last | about),
        ),
    )


def series(
    agent_id: str, count: int, start: datetime = START, first: int = 1, **about: Any
) -> list[AgentState]:
    """Good pings a quarter of an hour apart."""
    step = timedelta(seconds=900)
    return [state(agent_id, first + i, start + i * step, **about) for i in range(count)]


async def publish(client: Client, states: list[AgentState]) -> None:
    """WriteResult to the bucket in this order; a key is rewritten only when history has followed
    (else it loses one).
    """
    seen: set[str] = set()
    for before, one in zip([None, *states], states, strict=False):
        if before is not None and one.agent_id in seen:
            await followed(client, before)
            seen.clear()
        seen.add(one.agent_id)
        await client.jetstream().publish(subjects.state_key(one.agent_id), encode(one))
    await followed(client, states[-1])


async def followed(client: Client, newest: AgentState) -> None:
    """Waits until history holds this state; what was written before it is then there, too."""
    js = client.jetstream()
    subject = f"{subjects.HISTORY_PREFIX}{newest.agent_id}"
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(nats.js.errors.NotFoundError):
                found = await js.get_last_msg(subjects.HISTORY_STREAM, subject)
                if found.data == encode(newest):
                    return
            await asyncio.sleep(0.005)  # another server's progress: only looking tells


async def caught_up(client: Client, rows: int, seconds: float = 60.0) -> StorageStats:
    """Waits until storage has so many rows, nothing more to read, and nothing to wait for."""
    found: list[StorageStats] = []

    async def there() -> bool:
        try:
            found.append(
                await micro_services.ask(
                    client, subjects.STORAGE_STATS, None, StorageStats, who="storage"
                )
            )
        except UnavailableError:
            return False  # it starts
        newest = found[-1]
        return newest.rows >= rows and newest.lag == 0 and newest.ingest_waiting is None

    try:
        await until_answered(there, seconds)
    except TimeoutError:
        raise AssertionError(f"expected {rows} rows and no lag, last seen {found[-1:]}") from None
    return found[-1]


async def read_to_the_end(client: Client) -> None:
    """Waits until storage has taken in all that the stream holds now.

    Where retention may already have let rows go, their count does not tell.
    """
    stream = await client.jetstream().stream_info(subjects.HISTORY_STREAM)

    async def read() -> bool:
        try:
            stats = await micro_services.ask(
                client, subjects.STORAGE_STATS, None, StorageStats, who="storage"
            )
        except UnavailableError:
            return False  # it starts
        return stats.last_sequence >= stream.state.last_seq

    await until_answered(read)


async def raw_history(client: Client) -> list[AgentState]:
    """The stream read by somebody who knows nothing of storage: every message by its number."""
    js = client.jetstream()
    info = await js.stream_info(subjects.HISTORY_STREAM)
    found = []
    for sequence in range(info.state.first_seq, info.state.last_seq + 1):
        message = await js.get_msg(subjects.HISTORY_STREAM, sequence)
        found.append(msgspec.json.decode(message.data or b"", type=AgentState))
    return found
