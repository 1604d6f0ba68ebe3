"""How far GPUPING_HISTORY follows the bucket: no outcome is overwritten before it is there.

The bucket keeps one revision of each key, and the server copies revisions into the history stream
by itself. While it does not (its leader froze or died; it then tries again after 10 to 120 s), an
outcome that is overwritten is lost to history. A ping is therefore held while the agent's last
state is not in the history yet. It is late then and not lost: the next window begins where the last
one ended.

The position is read from the last message of the history itself. The `lag` that the server reports
for a source looks fine while sourcing stands still.
"""

import asyncio
from collections.abc import Callable

import structlog

from bus.clock import boottime
from bus.errors import BusError
from bus.transport import layout
from bus.transport.connection import Client

log = structlog.get_logger("scheduler.cluster.history_position")

READ_SECONDS = 1.0
HOLDING_READ_SECONDS = 0.1  # while a ping is held
TOLD_SECONDS = 15.0  # of holding, before it is logged


class HistoryPosition:
    """`sequence` is the newest revision of the bucket that the history holds, or infinity.

    Infinity stands for an empty history, which holds nobody. Before the first reading it is 0,
    which holds everybody who has a state. `on_change` is called when it has changed.
    """

    def __init__(self, client: Client, on_change: Callable[[], None]) -> None:
        self._client = client
        self._on_change = on_change
        self.sequence: float = 0
        self._holding_wanted = asyncio.Event()
        self._holding_since: float | None = None  # CLOCK_BOOTTIME, seconds
        self._is_told = False
        self._held_before = 0.0

    async def run(self) -> None:
        """Reads until cancelled: every READ_SECONDS, and more often while a ping is held."""
        while True:
            try:
                async with asyncio.timeout(READ_SECONDS):
                    await self._holding_wanted.wait()
                await asyncio.sleep(HOLDING_READ_SECONDS)
            except TimeoutError:
                pass
            await self.read()
            self._tell()

    async def read(self) -> None:
        """Reads once. A position that cannot be read stays as it was."""
        try:
            sequence = await layout.sourced_sequence(self._client)
        except BusError as error:
            log.debug("history_position_read_failed", detail=str(error))
            return
        if sequence != self.sequence:
            self.sequence = sequence
            self._on_change()

    def has(self, revision: int) -> bool:
        """Returns whether the history holds this revision of a state; 0 stands for no state."""
        return revision <= self.sequence

    def note_held(self, held: int) -> None:
        """Notes how many due pings are held now."""
        if held and self._holding_since is None:
            self._holding_since = boottime()
            self._holding_wanted.set()
        elif not held and self._holding_since is not None:
            self._held_before += boottime() - self._holding_since
            self._holding_since = None
            self._holding_wanted.clear()

    @property
    def holding_seconds(self) -> float:
        """For how long pings have been held without a break; 0 when none is held."""
        if self._holding_since is None:
            return 0.0
        return boottime() - self._holding_since

    @property
    def held_seconds(self) -> float:
        """Time since the start in which at least one ping was held."""
        return self._held_before + self.holding_seconds

    def _tell(self) -> None:
        """Logs once that pings are held for long, and the end of it."""
        is_long = self.holding_seconds > TOLD_SECONDS
        if is_long and not self._is_told:
            log.error(
                "pings_held",
                seconds=round(self.holding_seconds, 1),
                detail="the history stream does not follow the bucket",
                action="pings are late and none is lost; look at the servers of the bus",
            )
        if self._is_told and not is_long:
            log.warning("pings_released")
        self._is_told = is_long
