"""The period `[since, until)` that a question about the past is of."""

from datetime import datetime, timedelta

from bus import clock
from bus.contract.messages import EARLIEST, Span, check_timestamps
from gateway.web.problems import ProblemError

DEFAULT_PERIOD = timedelta(hours=24)


def period_of(since: datetime | None, until: datetime | None) -> Span:
    """The period, by default the last 24 hours. A bad one is a 400 problem."""
    end = aware(until, "until") or clock.utc_now()
    begin = aware(since, "since") or max(EARLIEST, end - DEFAULT_PERIOD)
    if begin >= end:
        raise ProblemError(400, "until must be after since")
    return Span(begin, end)


def aware(moment: datetime | None, name: str) -> datetime | None:
    """The moment, if its time zone is given and it is one that storage can hold."""
    if moment is None:
        return None
    if moment.tzinfo is None:
        raise ProblemError(400, f"{name} needs a time zone, such as 2026-11-01T00:00:00Z")
    try:
        check_timestamps(moment)
    except ValueError as error:
        raise ProblemError(400, f"{name}: {error}") from None
    return moment
