"""Why ingest waits. Each reason is logged once, however often the work is tried again."""

import structlog

log = structlog.get_logger("storage")


class WaitLog:
    """`detail` is the last reason to wait, or None while ingest runs."""

    def __init__(self) -> None:
        self.detail: str | None = None
        # The reasons logged since ingest last ran: a full disk alternates between two.
        self._logged: set[str] = set()
        # The sequence number up to which a write failed.
        self._failed_at = 0

    def waiting(self, detail: str) -> None:
        """Notes that the work failed and will be tried again."""
        if detail not in self._logged:
            log.error("ingest_paused", detail=detail)
        self._logged.add(detail)
        self.detail = detail

    def write_failed(self, sequence: int) -> None:
        """Notes that a batch could not be written which ends with this message."""
        self._failed_at = max(self._failed_at, sequence)

    def written(self, sequence: int) -> None:
        """Notes that all messages up to this one are written.

        Ingest runs again once it has passed the batch that failed. A smaller batch before that may
        just have found the room that the larger one did not.
        """
        if sequence >= self._failed_at:
            self.running()

    def running(self) -> None:
        """Notes that nothing waits to be written.

        That the file can be opened is not enough for this, for writing may fail again.
        """
        if self.detail is not None:
            log.info("ingest_resumed")
        self._logged.clear()
        self._failed_at = 0
        self.detail = None
