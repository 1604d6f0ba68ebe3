"""Why ingest waits, told once for each trouble, however often it is tried again."""

import structlog

log = structlog.get_logger("storage")


class WaitLog:
    """`detail` is None while all is well."""

    def __init__(self) -> None:
        self.detail: str | None = None
        self._told: set[str] = set()  # of this trouble: a full disk says it in two ways, in turn
        self._stuck_at = 0  # the message up to which nothing could be written

    def waits(self, detail: str) -> None:
        """It was tried, and failed."""
        if detail not in self._told:
            log.error("ingest_waits", detail=detail)
        self._told.add(detail)
        self.detail = detail

    def stuck(self, sequence: int) -> None:
        """What ends with this message could not be written."""
        self._stuck_at = max(self._stuck_at, sequence)

    def written(self, sequence: int) -> None:
        """Up to this message. A smaller batch may find room where the one before did not: that is no end."""
        if sequence >= self._stuck_at:
            self.over()

    def over(self) -> None:
        """Nothing is left to write, or what could not be written has been: that a file can be opened proves nothing."""
        if self.detail is not None:
            log.info("ingest_goes_on")
        self._told.clear()
        self._stuck_at = 0
        self.detail = None
