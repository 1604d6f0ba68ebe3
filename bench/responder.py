"""Answers for a whole fleet from one fast Python process: `python -m bench.responder URL`.

The one place where a wildcard may cover the ping subjects: it is the agents.
"""

import asyncio
import sys
from datetime import UTC, datetime, timedelta

import uvloop
from nats.aio.msg import Msg

from bus import settings
from bus.contract.messages import (
    GpuReport,
    PingRequest,
    Seconds,
    UptimeReport,
    Window,
    decode,
    encode,
)
from bus.transport import connection
from bus.transport.connection import Client


def answer(agent: str, request: PingRequest, now: datetime) -> bytes:
    """A healthy report, of the size that a real one has."""
    length = round(request.window_seconds or 0.0, 3)
    seconds = Seconds(up=length)
    uuid = f"GPU-{agent:>32}".replace(" ", "0")
    if request.expected_gpus:
        uuid = request.expected_gpus[0]
    gpu = GpuReport(
        uuid=uuid,
        index=0,
        name="NVIDIA H100 80GB HBM3",
        state="up",
        uptime_percent=100.0,
        seconds=seconds,
    )
    window = Window(
        since=now - timedelta(seconds=length), until=now, seconds=length, mark=f"b3f1:{int(length)}"
    )
    report = UptimeReport(
        agent_id=agent,
        boot_id="0a4c1e9e-7c1e-4b1e-9d53-1b8a6f5f0c11",
        session_id="f00dfeed",
        window=window,
        uptime_percent=100.0,
        seconds=seconds,
        gpu_available=True,
        gpus=(gpu,),
        checks=180,
        agent_version="0.1.0",
        reported_at=now,
        ping_id=request.ping_id,
        nonce=request.nonce,
    )
    return encode(report)


class Replies:
    """Replies to all requests of one turn of the loop at once: it stands in for 100,000 hosts."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._frames: list[bytes] = []
        self._sending: asyncio.Task[None] | None = None

    def add(self, reply: str, payload: bytes) -> None:
        """One more, on its way before the next turn."""
        self._frames.append(b"PUB %b %d\r\n%b\r\n" % (reply.encode(), len(payload), payload))
        if self._sending is None:
            self._sending = asyncio.create_task(self._send())

    async def _send(self) -> None:
        frames = self._frames
        self._frames = []
        self._sending = None
        await self._client.send_frames(frames)


async def main(url: str) -> None:
    """Answers until killed; also a bare subject, for the raw request-reply of the same run."""
    async with connection.connected(settings.load({}, NATS_URL=url), "bench-responder") as client:
        replies = Replies(client)

        def ping(message: Msg) -> None:
            request = decode(message.data, PingRequest)
            replies.add(message.reply, answer(message.subject[13:], request, datetime.now(UTC)))

        async def raw(message: Msg) -> None:
            await client.publish(message.reply, message.data)

        await client.subscribe("bench.raw", cb=raw)
        async with client.listening("gpuping.ping.*", ping):
            await client.flush()
            print("ready", flush=True)
            await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
