"""The stretches of a window that were not plainly up, and its events, for a report. Pure.

One incident a reason: an ECC error that lasts stays one incident while other reasons come and go beside it,
so that no error hides another. What concerns the whole host is told once, with no GPU.
"""

from collections.abc import Iterator
from typing import NamedTuple

from agentd.ledger.ledger import Ledger
from agentd.ledger.records import HOST
from agentd.ledger.timeline import Kind

NEWEST = 50


class Occurrence(NamedTuple):
    """An incident in ledger time; `until` is None while it lasts. HOST stands for the whole host."""

    since: int
    until: int | None
    gpu: str
    state: str
    reason: str


def incidents(ledger: Ledger, since: int, now: int) -> list[Occurrence]:
    """The newest incidents that overlap `[since, now)`, newest first, each dated back to where it began."""
    found = [occurrence for gpu in ledger.timelines for occurrence in _of(ledger, gpu, since, now)]
    found += [
        Occurrence(event.at, event.at, event.gpu, "event", event.reason)
        for event in ledger.events
        if since <= event.at < now
    ]
    found.sort(key=lambda occurrence: occurrence.since, reverse=True)
    return found[:NEWEST]


def _of(ledger: Ledger, gpu: str, since: int, now: int) -> Iterator[Occurrence]:
    open_ones: dict[tuple[str, str], int] = {}
    for piece in ledger.pieces(gpu, ledger.timelines[gpu].began(since, 2 * NEWEST), now):
        holds = {(piece.kind.state, reason) for reason in _told(gpu, piece.kind)}
        for key in [key for key in open_ones if key not in holds]:
            yield Occurrence(open_ones.pop(key), piece.since, gpu, *key)
        for key in holds:
            open_ones.setdefault(key, piece.since)
    for key, began in open_ones.items():
        yield Occurrence(began, None, gpu, *key)


def _told(gpu: str, kind: Kind) -> tuple[str, ...]:
    if kind.state == "up" or kind.wide != (gpu == HOST):
        return ()
    return kind.reasons or (kind.state,)
