"""Detects outages of the bus's other servers, so that no host pays for the server it is on.

The bus monitor proves the scheduler's own server only. In a cluster an agent may be connected to
another, and a frozen one keeps its connections open: the agent's client notices that after 15 s.
The leader of the bucket knows when it heard each other server last, because they exchange
heartbeats every second. It is asked for that once a second. A server that was not heard for
GAP_SECONDS had an outage, and so had the leader itself when it does not answer.

Which server an agent is on is not known here. A wait that overlaps the outage of any server is
therefore excused, but only for the time that agents need to find another server: a server that
stays away is no excuse for a host that does.
"""

import asyncio
from typing import NamedTuple

import structlog

from bus.clock import boottime
from bus.contract import subjects
from bus.errors import BusError
from bus.transport import jetstream_api
from bus.transport.connection import Client
from bus.transport.jetstream_api import JsonObject

log = structlog.get_logger("scheduler.ping.outages.server_monitor")

ASK_SECONDS = 1.0
ANSWER_SECONDS = 2.0
RETRY_SECONDS = 0.2
GAP_SECONDS = 3.0  # three heartbeats
# An agent notices a frozen server after 15 s, its back-off takes up to 8 s, and the servers may
# need as long again to tell each other where it is now.
MOVING_SECONDS = 45.0
_LEADER = "the leader of the bucket"
_NANOSECONDS = 1e9


class _Server(NamedTuple):
    """When a server was heard last before its outage, and since; CLOCK_BOOTTIME in seconds."""

    outage_began: float
    outage_ended: float


class ServerMonitor:
    """Remembers the last outage of each server. It has nothing to tell of a single server."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._is_cluster = False
        self._answered_at = boottime()
        self._outages: dict[str, _Server] = {}  # the last one of each server

    async def run(self) -> None:
        """Monitors until cancelled."""
        self._answered_at = boottime()
        while True:
            await self._ask()
            await asyncio.sleep(ASK_SECONDS)

    async def await_answer(self) -> None:
        """Returns after an answer to a question that was asked after the call.

        That takes as long as the cluster needs to choose a leader. Returns at once where there is
        one server only.
        """
        if not self._is_cluster:
            return
        while not await self._ask():  # noqa: ASYNC110  # polls the server, no event of ours
            await asyncio.sleep(RETRY_SECONDS)

    def overlaps_outage(self, began: float, ended: float) -> bool:
        """Returns whether a wait from `began` to `ended` met an outage of any server."""
        for outage in self._outages.values():
            excused_until = outage.outage_began + MOVING_SECONDS
            if outage.outage_began < ended and excused_until > began:
                return True
        return False

    async def _ask(self) -> bool:
        asked_at = boottime()
        verb = f"STREAM.INFO.{subjects.BUCKET_STREAM}"
        try:
            info = await jetstream_api.call(self._client, verb, timeout=ANSWER_SECONDS)
        except BusError:
            return False
        cluster = info.get("cluster") or {}
        replicas = cluster.get("replicas") or []
        self._is_cluster = bool(replicas)
        if self._is_cluster:
            if boottime() - self._answered_at > GAP_SECONDS + ASK_SECONDS:
                self._note_outage(_LEADER, self._answered_at, boottime())
            for replica in replicas:
                self._note_heard(replica, asked_at)
        self._answered_at = boottime()
        return True

    def _note_heard(self, replica: JsonObject, now: float) -> None:
        silent_seconds = replica.get("active", 0) / _NANOSECONDS
        if silent_seconds > GAP_SECONDS:
            self._note_outage(replica["name"], now - silent_seconds, now)

    def _note_outage(
        self,
        server: str,
        began: float,
        ended: float,
    ) -> None:
        """Notes an outage, or that the one that is known goes on."""
        known = self._outages.get(server)
        if known is not None and began <= known.outage_ended:
            self._outages[server] = known._replace(outage_ended=ended)
            return
        self._outages[server] = _Server(began, ended)
        log.warning(
            "bus_server_outage_detected",
            server=server,
            seconds=round(ended - began, 3),
            action=f"pings within {MOVING_SECONDS:g} s of its beginning are excused",
        )
