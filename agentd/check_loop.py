"""The check loop: asks the probe, tells the ledger, hands the records to the disk.

Three things run apart, so that none holds up another: checks (a hung driver), writes (a slow disk), and
answers (`agentd/messaging/responder.py`), which only ever read what is in memory.
"""

import asyncio

import structlog

from agentd.ledger.ledger import HUNG, Ledger, Moment
from agentd.ledger.records import Record
from agentd.ledger.store import Keeper
from agentd.samples import Probe, Sample
from bus import clock

log = structlog.get_logger("agentd.check_loop")

GIVE_UP_SECONDS = (
    10.0  # a probe answers in bounded time; one that does not is called hung from here on
)
LAST_WRITE_SECONDS = 3.0
STALL_SECONDS = 5.0


def moment() -> Moment:
    """Both clocks, now."""
    return Moment(round(clock.boottime() * 1000), round(clock.utc_now().timestamp() * 1000))


class Daemon:
    """Checks every `interval` seconds. `observed` is set once the ledger has its first sample, or its first trouble."""

    def __init__(self, probe: Probe, keeper: Keeper, interval: float) -> None:
        self.probe = probe
        self.keeper = keeper
        self.interval = interval
        self.dropped = 0
        self.observed = asyncio.Event()
        self.turned_at = (
            clock.boottime()
        )  # BOOTTIME of the loop's last sign of life, for the watchdog
        self.sampled_at: float | None = None
        self._unwritten = asyncio.Event()
        self._trouble = ""

    @property
    def ledger(self) -> Ledger:
        """The ledger that this daemon feeds."""
        return self.keeper.ledger

    def note(self, records: list[Record]) -> None:
        """Hands records on to be written soon."""
        self.keeper.note(records)
        self._unwritten.set()

    def is_turning(self) -> bool:
        """The loop showed a sign of life of late; a hung driver does not stop it."""
        return clock.boottime() - self.turned_at < 3 * self.interval + STALL_SECONDS

    # ---- checks ----------------------------------------------------------------------------------------

    async def check(self) -> None:
        """Checks for ever, at a steady pace; turns that could not be had are counted as dropped."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            await self._turn()
            due += self.interval
            missed = max(0, int((loop.time() - due) // self.interval))
            self.dropped += missed
            due += missed * self.interval
            await asyncio.sleep(max(0.0, due - loop.time()))

    async def _turn(self) -> None:
        began = clock.boottime()
        checking = asyncio.ensure_future(self.probe.check(self.ledger.expected))
        try:
            while not checking.done():
                await asyncio.wait({checking}, timeout=self.interval)
                self.turned_at = clock.boottime()
                if not checking.done():
                    self.ledger.wait(began, moment())
                    self._overdue(began)
            self._take(checking.result())
        except Exception as error:  # noqa: BLE001  # whatever the probe's trouble, time goes on: unknown, not down
            self._without_sample(error)
        finally:
            checking.cancel()
        self.observed.set()

    def _take(self, sample: Sample) -> None:
        self.note(self.ledger.observe(sample, moment()))
        self.sampled_at = clock.boottime()
        self._trouble = ""

    def _overdue(self, began: float) -> None:
        """Beyond all patience a check that does not return is evidence: down, hung, since it began."""
        if clock.boottime() - began >= max(GIVE_UP_SECONDS, 2 * self.interval):
            self.note(self.ledger.observe(Sample(at=began, failure=HUNG), moment()))
            self.observed.set()

    def _without_sample(self, error: Exception) -> None:
        self.dropped += 1
        text = f"{type(error).__name__}: {error}"
        if text != self._trouble:
            log.error("check_failed", detail=text, exc_info=error)
        self._trouble = text

    # ---- the disk --------------------------------------------------------------------------------------

    async def save(self) -> None:
        """Writes for ever what there is to write; never two writes at once, not even on the way out."""
        while True:
            await self._unwritten.wait()
            self._unwritten.clear()
            if batch := self.keeper.take():
                writing = asyncio.ensure_future(asyncio.to_thread(self.keeper.write, batch))
                try:
                    await asyncio.shield(writing)
                except asyncio.CancelledError:
                    await asyncio.wait({writing}, timeout=LAST_WRITE_SECONDS)
                    raise
