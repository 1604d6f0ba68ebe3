"""What a scheduler knows of the others and of the bus."""

from typing import NamedTuple

from bus.transport.bus_clock import BusClock
from scheduler.cluster.history_position import HistoryPosition
from scheduler.cluster.peers import Peers


class Cluster(NamedTuple):
    """The parts that decide whether an agent is pinged here and now, and by which clock."""

    peers: Peers
    history: HistoryPosition
    bus_clock: BusClock
