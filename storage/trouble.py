"""Why ingest waits, told once for each trouble, however often it is tried again."""

import structlog

log = structlog.get_logger("storage")


class Trouble:
    """`detail` is None while all is well."""

    def __init__(self) -> None:
        self.detail: str | None = None
        self._told: set[str] = set()  # of this trouble: a full disk says it in two ways, in turn

    def waits(self, detail: str) -> None:
        """It was tried, and failed."""
        if detail not in self._told:
            log.error("ingest_waits", detail=detail)
        self._told.add(detail)
        self.detail = detail

    def over(self) -> None:
        """Proven by what was written, or by nothing being left to write: that a file can be opened proves nothing."""
        if self.detail is not None:
            log.info("ingest_goes_on")
        self._told.clear()
        self.detail = None
