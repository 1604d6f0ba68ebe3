"""The check loop asks the probe, gives the sample to the ledger, and queues records for the disk.

Three things run apart, so that none delays another: checks (which a hung driver blocks), writes
(which a slow disk blocks) and answers (`agentd/messaging/responder.py`), which only read what is in
memory.
"""

import asyncio

import structlog

from agentd.ledger.ledger import HUNG, ClockReading, Ledger
from agentd.ledger.records import Record
from agentd.ledger.store import Batch, LedgerStore
from agentd.samples import Probe, Sample
from bus import clock

log = structlog.get_logger("agentd.check_loop")

# A probe answers in bounded time. One that has not answered by then is called hung.
GIVE_UP_SECONDS = 10.0
# The first check may wait for the driver to be opened, which the probe itself limits to 30 s.
FIRST_GIVE_UP_SECONDS = 45.0
LAST_WRITE_SECONDS = 3.0
STALL_SECONDS = 5.0


def read_clocks() -> ClockReading:
    """Both clocks, now."""
    boottime_ms = round(clock.boottime() * 1000)
    wall_ms = round(clock.utc_now().timestamp() * 1000)
    return ClockReading(boottime_ms, wall_ms)


class CheckLoop:
    """Checks the GPUs every `interval` seconds.

    `first_look_ended` is set once the first check has ended, with a sample or with an error.
    """

    def __init__(
        self,
        probe: Probe,
        store: LedgerStore,
        interval: float,
    ) -> None:
        self.probe = probe
        self.store = store
        self.interval = interval
        self.dropped = 0  # checks that were skipped or failed
        self.first_look_ended = asyncio.Event()
        self.sampled_at: float | None = None  # BOOTTIME of the last sample, in seconds
        self._alive_at = clock.boottime()  # for the watchdog: when the loop last ran
        self._records_queued = asyncio.Event()
        self._awaiting_sync: list[asyncio.Event] = []
        self._last_error = ""

    @property
    def ledger(self) -> Ledger:
        """The ledger that takes in the samples."""
        return self.store.ledger

    def queue(self, records: list[Record]) -> None:
        """Queues records, which are written soon."""
        self.store.queue(records)
        self._records_queued.set()

    def is_alive(self) -> bool:
        """Whether the loop ran of late. A hung driver does not stop it."""
        return clock.boottime() - self._alive_at < 3 * self.interval + STALL_SECONDS

    # ---- checks ----------------------------------------------------------------------------------

    async def check(self) -> None:
        """Checks for ever at a steady pace.

        Checks whose time has passed are skipped and counted as dropped.
        """
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            await self._check_once()
            due += self.interval
            skipped = max(0, int((loop.time() - due) // self.interval))
            self.dropped += skipped
            due += skipped * self.interval
            await asyncio.sleep(max(0.0, due - loop.time()))

    async def _check_once(self) -> None:
        began = clock.boottime()
        checking = asyncio.ensure_future(self.probe.check(self.ledger.expected))
        try:
            while not checking.done():
                await asyncio.wait({checking}, timeout=self.interval)
                self._alive_at = clock.boottime()
                if not checking.done():
                    self.ledger.wait(began, read_clocks())
                    self._give_up_when_overdue(began)
            self._on_sample(checking.result())
        # A probe's error makes the time unknown, not down.
        except Exception as error:  # noqa: BLE001
            self._on_failed(error)
        finally:
            checking.cancel()
        self.first_look_ended.set()

    def _on_sample(self, sample: Sample) -> None:
        self.queue(self.ledger.observe(sample, read_clocks()))
        self.sampled_at = clock.boottime()
        self._last_error = ""

    def _give_up_when_overdue(self, began: float) -> None:
        """Without a return the GPUs are down since the check began, reason `hung`."""
        patience = max(GIVE_UP_SECONDS, 2 * self.interval)
        if not self.first_look_ended.is_set():
            patience = max(FIRST_GIVE_UP_SECONDS, patience)
        if clock.boottime() - began >= patience:
            self.queue(self.ledger.observe(Sample(at=began, failure=HUNG), read_clocks()))
            self.first_look_ended.set()

    def _on_failed(self, error: Exception) -> None:
        self.dropped += 1
        text = f"{type(error).__name__}: {error}"
        if text != self._last_error:
            log.error(
                "check_failed",
                detail=text,
                exc_info=error,
            )
        self._last_error = text

    # ---- the disk --------------------------------------------------------------------------------

    async def sync(self) -> None:
        """Returns when all queued records are on the disk, or when the disk has refused them.

        The store keeps refused records in memory and says so in `write_error`.
        """
        synced = asyncio.Event()
        self._awaiting_sync.append(synced)
        self._records_queued.set()
        await synced.wait()

    async def save(self) -> None:
        """Writes queued records for ever.

        There are never two writes at once, not even when it is cancelled.
        """
        while True:
            await self._records_queued.wait()
            self._records_queued.clear()
            awaiting = self._awaiting_sync
            self._awaiting_sync = []
            batch = self.store.take_batch(sync=bool(awaiting))
            if batch is not None:
                await self._write(batch)
            for synced in awaiting:
                synced.set()

    async def _write(self, batch: Batch) -> None:
        writing = asyncio.ensure_future(asyncio.to_thread(self.store.write, batch))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.wait({writing}, timeout=LAST_WRITE_SECONDS)
            raise
