"""Answers for a whole fleet from one fast Python process: `python -m bench.responder URL`.

With `URL CREDENTIALS FLEET SEED_FILE` it signs what it answers, as hosts do.

The one place where a wildcard may cover the ping subjects: it is the agents.
"""

import asyncio
import contextlib
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import nats.errors
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
from bus.identity import credentials
from bus.identity.keys import SigningKey
from bus.identity.signatures import GENESIS
from bus.identity.signed_report import HEADER, ReportSigner
from bus.transport import connection
from bus.transport.connection import Client


def answer(agent: str, request: PingRequest, now: datetime) -> bytes:
    """The bytes of a healthy report."""
    return encode(healthy(agent, request, now))


def healthy(agent: str, request: PingRequest, now: datetime) -> UptimeReport:
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
    return UptimeReport(
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


def signed(signer: ReportSigner, agent: str, data: bytes) -> tuple[bytes, str]:
    """A healthy report and its signature, which goes on with the ledger of the last one."""
    request = decode(data or b"{}", PingRequest)
    report = healthy(agent, request, datetime.now(UTC))
    payload = encode(report)
    extends = request.ledger_heads[0] if request.ledger_heads else GENESIS
    head = f"{request.seq or 0:064x}"
    return payload, signer.sign(request, data, report, payload, head, extends)


class Replies:
    """Replies to all requests of one turn of the loop at once: it stands in for 100,000 hosts."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._frames: list[bytes] = []
        self._sending: asyncio.Task[None] | None = None

    def add(self, reply: str, payload: bytes, signature: str | None = None) -> None:
        """One more, on its way before the next turn."""
        if signature is None:
            frame = b"PUB %b %d\r\n%b\r\n" % (reply.encode(), len(payload), payload)
        else:
            header = f"NATS/1.0\r\n{HEADER}: {signature}\r\n\r\n".encode()
            lengths = (reply.encode(), len(header), len(header) + len(payload))
            frame = b"HPUB %b %d %d\r\n%b%b\r\n" % (*lengths, header, payload)
        self._frames.append(frame)
        if self._sending is None:
            self._sending = asyncio.create_task(self._send())

    async def _send(self) -> None:
        frames = self._frames
        self._frames = []
        self._sending = None
        # On a machine that is too busy what finds no room is asked again.
        with contextlib.suppress(nats.errors.OutboundBufferLimitError):
            await self._client.send_frames(frames)


async def main(
    url: str,
    creds: str | None = None,
    fleet: str = "",
    seed_file: str = "",
) -> None:
    """Answers until killed; also a bare subject, for the raw request-reply of the same run."""
    config = settings.load({}, NATS_URL=url, NATS_CREDS=creds)
    signer = None
    if seed_file:
        signer = ReportSigner(fleet, SigningKey.from_seed(credentials.read_secret(Path(seed_file))))
    async with connection.connected(config, "bench-responder") as client:
        replies = Replies(client)

        def ping(message: Msg) -> None:
            agent = message.subject[13:]
            if signer is None:
                request = decode(message.data or b"{}", PingRequest)
                replies.add(message.reply, answer(agent, request, datetime.now(UTC)))
            else:
                replies.add(message.reply, *signed(signer, agent, message.data))

        async def raw(message: Msg) -> None:
            await client.publish(message.reply, message.data)

        await client.subscribe("bench.raw", cb=raw)
        async with client.listening("gpuping.ping.*", ping):
            await client.flush()
            print("ready", flush=True)
            await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
