"""Agents for tests: real bus clients that answer pings as they are told, with honest windows."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from nats.aio.msg import Msg

from bus.contract import subjects
from bus.contract.messages import (
    GpuReport,
    PingRequest,
    Seconds,
    UptimeReport,
    Window,
    decode,
    encode,
)
from bus.settings import Settings
from bus.transport import connection

AnswerPing = Callable[[str, PingRequest], bytes | None]


def report(
    agent_id: str, request: PingRequest, *, up: float = 1.0, gpus: int = 1, **changes: object
) -> UptimeReport:
    """A report over the window asked for, `up` of it spent up and the rest down."""
    now = datetime.now(UTC)
    length = round(request.window_seconds or 0.0, 3)
    seconds = Seconds(up=round(length * up, 3), down=round(length - round(length * up, 3), 3))
    percent = min(100.0, 100.0 * seconds.up / length) if length else None
    fields = {
        "agent_id": agent_id,
        "boot_id": "boot",
        "session_id": "session",
        "window": Window(
            since=now - timedelta(seconds=length), until=now, seconds=length, mark=now.isoformat()
        ),
        "uptime_percent": percent,
        "seconds": seconds,
        "gpu_available": gpus > 0,
        "gpus": tuple(
            GpuReport(
                uuid=f"GPU-{agent_id}-{index}",
                index=index,
                name="Test GPU",
                state="up",
                seconds=seconds,
            )
            for index in range(gpus)
        ),
        "reported_at": now,
        "ping_id": request.ping_id,
        "nonce": request.nonce,
    }
    return UptimeReport(**(fields | changes))  # type: ignore[arg-type]


class TestAgents:
    """Answers for many agents on one connection; `asked` keeps the requests of each, in order."""

    __test__ = False  # not a test class, whatever its name says

    def __init__(self, client: connection.Client) -> None:
        self._client = client
        self.asked: dict[str, list[PingRequest]] = {}

    async def add(self, agent_id: str, answer: AnswerPing | None = None) -> None:
        """Listens for the agent; `answer` makes the reply's bytes, None from it stays silent."""

        async def reply(message: Msg) -> None:
            request = decode(message.data or b"{}", PingRequest)
            self.asked.setdefault(agent_id, []).append(request)
            data = answer(agent_id, request) if answer else encode(report(agent_id, request))
            if data is not None:
                await message.respond(data)

        await self._client.subscribe(subjects.ping(agent_id), cb=reply)
        await self._client.flush()


@asynccontextmanager
async def answering(settings: Settings) -> AsyncIterator[TestAgents]:
    """Test agents on a connection of their own."""
    async with connection.connected(settings, "test-agents") as client:
        yield TestAgents(client)


def uptime(fraction: float) -> AnswerPing:
    """Answers with this share of the window up."""
    return lambda agent_id, request: encode(report(agent_id, request, up=fraction))


def silent(_agent_id: str, _request: PingRequest) -> bytes | None:
    """Hears and does not answer."""
    return None
