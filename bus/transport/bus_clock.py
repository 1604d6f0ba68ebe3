"""The clock that all services share: the bus server's, as far as this process knows it.

Windows lie on the schedulers' calendar, so a scheduler whose own clock is wrong would move them.
The server decides when credentials expire, so the enrolment service goes by its clock as well.
Every MEASURE_SECONDS the offset to the server's clock is measured. A clock that is ahead by more
than TOLERANCE_SECONDS is not believed: the server's is used instead. One that is behind does no
harm to windows, because none ends before it begins; it is said all the same.

Between two measurements time passes by CLOCK_BOOTTIME. A clock that somebody sets meanwhile is not
used before it was measured: set ahead by an hour it would make every agent due at once.
"""

import asyncio
from datetime import datetime, timedelta
from typing import NamedTuple

import structlog
from nats.aio.client import Client

from bus.clock import boot_id, boottime, utc_now
from bus.contract import subjects
from bus.contract.messages import AnsweredPing
from bus.errors import BusError
from bus.transport import jetstream_api

log = structlog.get_logger("bus.transport.bus_clock")

MEASURE_SECONDS = 10.0
MEASURE_TIMEOUT_SECONDS = 3.0  # the first measurement is wrong by half of it at most
RETRY_SECONDS = 0.5
TOLERANCE_SECONDS = 2.0
# Of a measurement; a slower one says too little. The first one counts all the same: it is wrong by
# half of its round trip at most, and a clock that nobody has measured may be an hour off.
LONGEST_ROUND_TRIP_SECONDS = 1.0


class _Measured(NamedTuple):
    """Our wall time and CLOCK_BOOTTIME (seconds) at the last measurement."""

    wall: datetime
    boottime: float


class BusClock:
    """`offset_seconds` is the server's clock less ours; None before the first measurement."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._boot_id = boot_id()
        self.offset_seconds: float | None = None
        self._measured: _Measured | None = None
        self._is_said = False

    async def run(self) -> None:
        """Measures until cancelled."""
        while True:
            await asyncio.sleep(MEASURE_SECONDS)
            await self.measure()

    async def measure_first(self) -> None:
        """Returns after a measurement, however long the server does not answer."""
        await self.measure()
        while self.offset_seconds is None:
            await asyncio.sleep(RETRY_SECONDS)
            await self.measure()

    async def measure(self) -> None:
        """Measures once. An offset that cannot be measured stays as it was."""
        began = boottime()
        try:
            info = await jetstream_api.call(
                self._client,
                f"STREAM.INFO.{subjects.BUCKET_STREAM}",
                timeout=MEASURE_TIMEOUT_SECONDS,
            )
            server_time = datetime.fromisoformat(info["ts"])
        except (BusError, KeyError, ValueError) as error:
            log.debug("bus_clock_measurement_failed", detail=str(error))
            return
        ended = boottime()
        is_first = self.offset_seconds is None
        if ended - began > LONGEST_ROUND_TRIP_SECONDS and not is_first:
            return
        midway = utc_now() - timedelta(seconds=(ended - began) / 2)
        self.note((server_time - midway).total_seconds())

    def note(self, offset_seconds: float) -> None:
        """Takes a measured offset, and logs when it goes beyond the tolerance or comes back."""
        self.offset_seconds = offset_seconds
        self._measured = _Measured(utc_now(), boottime())
        self._say()

    def now(self) -> datetime:
        """Returns our wall time, or the server's where ours is ahead of it."""
        now = self._own_time()
        offset = self.offset_seconds
        if offset is not None and offset < -TOLERANCE_SECONDS:
            return now + timedelta(seconds=offset)
        return now

    def clamped_ms(self) -> int:
        """Returns by how many milliseconds our wall time is ahead of `now`."""
        offset = self.offset_seconds
        if offset is None or offset >= -TOLERANCE_SECONDS:
            return 0
        return round(-offset * 1000)

    def reading(self) -> AnsweredPing:
        """Returns the clocks that nobody sets while we run, as windows need them."""
        return AnsweredPing(
            boot_id=self._boot_id,
            boottime=boottime(),
            bus_time=self.server_now(),
        )

    def server_now(self) -> datetime | None:
        """Returns the server's time; None before the first measurement."""
        if self.offset_seconds is None:
            return None
        return self._own_time() + timedelta(seconds=self.offset_seconds)

    def now_on_server(self) -> datetime:
        """Returns the server's time, or ours as long as it is not known."""
        return self.server_now() or utc_now()

    def _own_time(self) -> datetime:
        """Returns our wall time as if nobody had set the clock since the last measurement."""
        now = utc_now()
        if self._measured is None:
            return now
        passed = timedelta(seconds=boottime() - self._measured.boottime)
        expected = self._measured.wall + passed
        if abs((now - expected).total_seconds()) > TOLERANCE_SECONDS:
            return expected
        return now

    def _say(self) -> None:
        """Logs a difference once when it begins, and its end."""
        offset = self.offset_seconds or 0.0
        differs = abs(offset) > TOLERANCE_SECONDS
        if differs and not self._is_said:
            log.error(
                "clock_differs_from_bus",
                seconds=round(offset, 3),
                action="set the clock of this host or of the server right (NTP)",
            )
        if self._is_said and not differs:
            log.info("clock_agrees_with_bus", seconds=round(offset, 3))
        self._is_said = differs
