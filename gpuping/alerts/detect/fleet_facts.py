"""Follows the registry entries of all agents: labels, expected GPUs, and maintenance."""

import structlog

from bus.contract import subjects
from bus.contract.messages import AgentEntry, decode
from bus.errors import BadMessageError
from bus.transport.connection import Client
from bus.transport.consumers.kv_watcher import KeyWatcher
from gpuping.alerts.detect.hosts import HostFacts

log = structlog.get_logger("gpuping.alerts.detect.registry")


class FleetFacts:
    """The facts of every agent that was ever registered."""

    def __init__(self, client: Client) -> None:
        self.known: dict[str, HostFacts] = {}
        self.watcher = KeyWatcher(
            client, subjects.BUCKET_STREAM, subjects.agent_key("*"), self._apply
        )

    def of(self, agent_id: str) -> HostFacts | None:
        """The facts of one agent; None for one that is not known."""
        return self.known.get(agent_id)

    def _apply(
        self,
        subject: str,
        data: bytes,
        _revision: int,
        _time_ns: int,
        is_deleted: bool,  # the watcher's callback
    ) -> None:
        agent_id = subject.rpartition(".")[2]
        if is_deleted or not data:
            self.known.pop(agent_id, None)
            return
        try:
            self.known[agent_id] = HostFacts.of(decode(data, AgentEntry))
        except BadMessageError as error:
            log.warning("alerts_entry_decode_failed", agent_id=agent_id, detail=str(error))
