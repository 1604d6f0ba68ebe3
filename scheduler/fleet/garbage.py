"""The interpreter's search for garbage in a process that holds a large fleet.

With the default thresholds the search took 7 to 12 % of a scheduler's time, and found nothing: it
looked at the same agents again and again. What the fleet consists of is set aside (`gc.freeze`),
and the rest is looked at less often. A fleet may be large at the start or grow large later.
"""

import asyncio
import gc
from collections.abc import Sized

LARGE_FLEET = 10_000  # agents
LARGE_FLEET_THRESHOLDS = (100_000, 20, 100)
LOOK_SECONDS = 10.0


class GarbageSearch:
    """Sets a fleet aside when it has become large, and again whenever it has doubled."""

    def __init__(self, fleet: Sized) -> None:
        self._fleet = fleet
        self._set_aside_at = 0  # agents

    def on_loaded(self) -> None:
        """The fleet is loaded, and nothing is pinged yet.

        A full search takes seconds for a million agents; now it delays nothing.
        """
        if len(self._fleet) >= LARGE_FLEET:
            gc.collect()
        self.set_aside()

    def set_aside(self) -> None:
        """Sets a fleet aside that has become large: without a search, so it takes no time."""
        agents = len(self._fleet)
        if agents < max(LARGE_FLEET, 2 * self._set_aside_at):
            return
        gc.freeze()
        gc.set_threshold(*LARGE_FLEET_THRESHOLDS)
        self._set_aside_at = agents

    async def run(self) -> None:
        """Looks now and then how large the fleet has become, for ever."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.set_aside()
