"""Many simulated hosts in one process: each keeps an honest ledger and answers its own pings.

The process may be killed, frozen, cut off and have its clock set. It notes ten times a second that
it lives; the time between two notes that are further apart is unknown, as in agentd's ledger.
"""

import asyncio
import os
import struct
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
from nats.aio.msg import Msg

from bus import settings
from bus.clock import boottime
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
from bus.transport import connection
from tests.chaos.records import Answered

BEAT_SECONDS = 0.1
GAP_MILLISECONDS = 500
POOR_EVERY = 10  # every tenth host is up half of the time
POOR_SHARE = 0.5


def share_up(agent_id: str) -> float:
    """How much of its life a host is up, while it lives."""
    number = int(agent_id[1:])
    if number % POOR_EVERY == POOR_EVERY - 1:
        return POOR_SHARE
    return 1.0


def read_gaps(file: Path) -> list[tuple[int, int]]:
    """When a fleet did not live, on CLOCK_BOOTTIME in milliseconds."""
    stored = file.read_bytes()
    whole = len(stored) // 16 * 16
    return [(began, ended) for began, ended in struct.iter_unpack("qq", stored[:whole])]


class Life:
    """When this process lived, on CLOCK_BOOTTIME in milliseconds; kept in a file."""

    def __init__(self, file: Path) -> None:
        self._gaps_file = os.open(file.with_suffix(".gaps"), os.O_CREAT | os.O_APPEND | os.O_RDWR)
        self._beat_file = os.open(file.with_suffix(".beat"), os.O_CREAT | os.O_RDWR)
        self._gaps = read_gaps(file.with_suffix(".gaps"))
        beat = os.pread(self._beat_file, 8, 0)
        self._last = struct.unpack("q", beat)[0] if len(beat) == 8 else now_ms()
        self.beat(restarted=True)

    def beat(self, *, restarted: bool = False) -> int:
        """Notes that it lives, and a gap where it did not. Returns the position."""
        now = now_ms()
        if now - self._last > GAP_MILLISECONDS or restarted:
            self._gaps.append((self._last, now))
            os.write(self._gaps_file, struct.pack("qq", self._last, now))
        self._last = now
        os.pwrite(self._beat_file, struct.pack("q", now), 0)
        return now

    def unknown(self, since: int, until: int) -> int:
        """Milliseconds of this stretch in which it did not live."""
        return sum(max(0, min(end, until) - max(begin, since)) for begin, end in self._gaps)


def now_ms() -> int:
    return round(boottime() * 1000)


class Host:
    """One simulated host."""

    def __init__(self, agent_id: str, life: Life, record: int) -> None:
        self.agent_id = agent_id
        self._life = life
        self._record = record
        # A ping that is heard again gets the bytes it got; one that is started anew does not.
        self._said: dict[tuple[str, str | None], bytes] = {}

    async def hear(self, message: Msg) -> None:
        request = decode(message.data, PingRequest)
        if request.ping_id is None:
            return
        heard = (request.ping_id, request.nonce)
        if heard not in self._said:
            if len(self._said) > 20:
                self._said.pop(next(iter(self._said)))
            self._said[heard] = self._answer(request)
        await message.respond(self._said[heard])

    def _answer(self, request: PingRequest) -> bytes:
        assert request.ping_id
        until = self._life.beat()
        since = until - round((request.window_seconds or 0.0) * 1000)
        if request.since_mark is not None:
            since = int(request.since_mark)
        unknown = min(until - since, self._life.unknown(since, until))
        up = round((until - since - unknown) * share_up(self.agent_id))
        data = encode(self._report(request, since, until, up, unknown))
        answered = Answered(
            self.agent_id,
            request.ping_id,
            datetime.now(UTC),
            request.since_mark,
            since,
            until,
            up,
            unknown,
            data.decode(),
        )
        os.write(self._record, msgspec.json.encode(answered) + b"\n")
        return data

    def _report(
        self, request: PingRequest, since: int, until: int, up: int, unknown: int
    ) -> UptimeReport:
        length = until - since
        now = datetime.now(UTC)
        seconds = Seconds(up=up / 1000, down=(length - up - unknown) / 1000, unknown=unknown / 1000)
        return UptimeReport(
            agent_id=self.agent_id,
            boot_id="boot",
            session_id=self.agent_id,
            window=Window(
                since=now - timedelta(milliseconds=length),
                until=now,
                seconds=length / 1000,
                mark=str(until),
            ),
            uptime_percent=100.0 * up / length if length else None,
            seconds=seconds,
            gpu_available=True,
            gpus=(
                GpuReport(
                    uuid=f"GPU-{self.agent_id}",
                    index=0,
                    name="Chaos GPU",
                    state="up",
                    seconds=seconds,
                ),
            ),
            reported_at=now,
            ping_id=request.ping_id,
            nonce=request.nonce,
        )


async def live(folder: Path, name: str, first: int, count: int) -> None:
    record = os.open(folder / f"{name}.answers", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    os.write(record, b"\n")  # after a line that was torn
    life = Life(folder / name)
    async with connection.connected(settings.load(), name) as client:
        for number in range(first, first + count):
            host = Host(f"h{number:04d}", life, record)
            await client.subscribe(subjects.ping(host.agent_id), cb=host.hear)
        await client.flush()
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            life.beat()


if __name__ == "__main__":
    asyncio.run(live(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
