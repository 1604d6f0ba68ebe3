"""The times in a window in which a GPU was not up, and its events, for a report. Pure.

There is one incident per reason: an ECC error that lasts stays one incident while other reasons
come and go beside it, so that no error hides another. A reason that concerns the whole host is
reported once, without a GPU.
"""

from collections.abc import Iterator
from typing import NamedTuple

from agentd.ledger.ledger import Ledger
from agentd.ledger.records import HOST
from agentd.ledger.timeline import Condition

NEWEST = 50


class Occurrence(NamedTuple):
    """An incident in ledger time.

    `until` is None while it lasts; HOST stands for the whole host.
    """

    since: int
    until: int | None
    gpu: str
    state: str
    reason: str


def incidents(
    ledger: Ledger,
    since: int,
    now: int,
) -> list[Occurrence]:
    """The newest incidents that overlap `[since, now)`, newest first, each since it began."""
    found: list[Occurrence] = []
    for gpu in ledger.timelines:
        found.extend(
            _of_gpu(
                ledger,
                gpu,
                since,
                now,
            )
        )
    for event in ledger.events:
        if since <= event.at < now:
            found.append(
                Occurrence(
                    event.at,
                    event.at,
                    event.gpu,
                    "event",
                    event.reason,
                )
            )
    found.sort(key=lambda occurrence: occurrence.since, reverse=True)
    return found[:NEWEST]


def _of_gpu(
    ledger: Ledger,
    gpu: str,
    since: int,
    now: int,
) -> Iterator[Occurrence]:
    began_at: dict[tuple[str, str], int] = {}  # of the incidents that last, by state and reason
    first = ledger.timelines[gpu].began(since, 2 * NEWEST)
    for interval in ledger.intervals(gpu, first, now):
        state = interval.condition.state
        lasting = [(state, reason) for reason in _reported_reasons(gpu, interval.condition)]
        ended = [key for key in began_at if key not in lasting]
        for key in ended:
            yield Occurrence(began_at.pop(key), interval.since, gpu, *key)
        for key in lasting:
            began_at.setdefault(key, interval.since)
    for key, began in began_at.items():
        yield Occurrence(began, None, gpu, *key)


def _reported_reasons(gpu: str, condition: Condition) -> tuple[str, ...]:
    """The reasons that this timeline reports; HOST alone reports those of the whole host."""
    belongs_here = condition.host_wide == (gpu == HOST)
    if condition.state == "up" or not belongs_here:
        return ()
    return condition.reasons or (condition.state,)
