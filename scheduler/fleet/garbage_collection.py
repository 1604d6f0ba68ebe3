"""Garbage collection in a process that holds a large fleet.

With the default thresholds the collector took 7 to 12 % of a scheduler's time, and found nothing:
it looked at the same agents again and again. So the objects of which a large fleet consists are
excluded from collections (`gc.freeze`), and the rest is collected less often. A fleet may be large
at the start or grow large later.
"""

import asyncio
import gc
from collections.abc import Sized

LARGE_FLEET = 10_000  # agents
LARGE_FLEET_THRESHOLDS = (100_000, 20, 100)
CHECK_SECONDS = 10.0


class FleetFreezer:
    """Freezes a fleet when it has become large, and again whenever it has doubled."""

    def __init__(self, fleet: Sized) -> None:
        self._fleet = fleet
        self._frozen_at = 0  # agents

    def on_loaded(self) -> None:
        """Collects once, and freezes: the fleet is loaded, and nothing is pinged yet.

        A full collection takes seconds for a million agents; at this moment it delays nothing.
        """
        if len(self._fleet) >= LARGE_FLEET:
            gc.collect()
        self.freeze_if_large()

    def freeze_if_large(self) -> None:
        """Freezes without a collection, which takes no time."""
        agents = len(self._fleet)
        if agents < max(LARGE_FLEET, 2 * self._frozen_at):
            return
        gc.freeze()
        gc.set_threshold(*LARGE_FLEET_THRESHOLDS)
        self._frozen_at = agents

    async def run(self) -> None:
        """Checks the size of the fleet every CHECK_SECONDS, for ever."""
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            self.freeze_if_large()
