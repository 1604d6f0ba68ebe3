"""The hosts whose reports count although nobody signed them, and until when they do."""

from collections.abc import Callable
from datetime import datetime

import structlog

from bus.clock import boottime
from scheduler.fleet.directory import Directory

log = structlog.get_logger("scheduler.fleet.unsigned_hosts")

LOOK_SECONDS = 60.0  # a fleet of a million is looked through in a tenth of a second
NAMED_AGENTS = 20  # in one line of the log


class UnsignedHosts:
    """Finds them while they are believed: until `until`, or without an end where it is None."""

    def __init__(
        self,
        directory: Directory,
        now: Callable[[], datetime],
        *,
        until: datetime | None,
        requires_signed: bool,
    ) -> None:
        self.until = until
        self._directory = directory
        self._now = now
        self._requires_signed = requires_signed
        self._ids: list[str] = []
        self._looked_at: float | None = None

    @property
    def are_believed(self) -> bool:
        """Whether reports count without a signature now, of hosts whose key is not known."""
        if self._requires_signed:
            return False
        return self.until is None or self._now() < self.until

    def count(self) -> int:
        """How many hosts are believed without a signature."""
        if not self.are_believed:
            return 0
        clock = boottime()
        if self._looked_at is None or clock - self._looked_at >= LOOK_SECONDS:
            self._looked_at = clock
            self._ids = self._without_key()
        return len(self._ids)

    def log(self) -> None:
        """Logs which hosts need a key, and until when their reports count without one."""
        if self._requires_signed:
            return
        ids = self._without_key()
        if not self.are_believed:
            if ids:
                log.error(
                    "unsigned_reports_ended",
                    since=str(self.until),
                    hosts=ids[:NAMED_AGENTS],
                    number=len(ids),
                    action="they miss their pings: `gpuping enroll new --id ID` for each",
                )
            return
        log.warning(
            "unsigned_reports_accepted",
            until=str(self.until or "you set GPUPING_REQUIRE_SIGNED=true"),
            hosts=ids[:NAMED_AGENTS],
            number=len(ids),
            action="until then whoever answers for such a host is believed; "
            "`gpuping enroll new --id ID` prints the one line that gives a host its keys, "
            "`gpuping creds hosts` lists all, `gpuping creds unsigned --end` ends it now",
        )

    def _without_key(self) -> list[str]:
        found = []
        for agent_id in self._directory.registered_ids():
            tracked = self._directory.get(agent_id)
            entry = None if tracked is None else tracked.entry
            if entry is not None and entry.signing_key is None and not entry.by_http:
                found.append(agent_id)
        return sorted(found)
