"""Merges the incidents that successive reports repeat. Pure.

A report lists every incident that was open within its window. An incident that goes on is listed
again by the next report, and the last report that lists it decides when it ended. The wording of
an incident is the agent's: `agentd/ledger/incidents.py` and `agentd/health/rules.py`.
"""

from datetime import datetime
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from bus.contract.durations import Interval
from bus.contract.messages import Incident
from storage.engine.rows import EXCUSED, from_microseconds, microseconds

CLOCK_JITTER_US = (
    100_000  # a host's clock is corrected while it runs, so labels of one moment differ
)


class _Key(NamedTuple):
    gpu: str | None
    state: str
    reason: str


class _Open(Struct, frozen=True):
    """Where the incident stands in the list, and the end of the report that left it open."""

    index: int
    reported_until_us: int


class IncidentList:
    """The incidents of an agent's reports, which are added in order of time."""

    def __init__(self) -> None:
        self._incidents: list[Incident] = []
        self._open: dict[_Key, _Open] = {}
        self._excused: int | None = None  # where the newest maintenance stands

    def add_report(
        self,
        incidents: tuple[Incident, ...],
        until_us: int,
    ) -> None:
        """Adds one report's incidents. `until_us`: the end of its window."""
        for incident in incidents:
            if incident.state == EXCUSED:
                self._add_excused(incident)
            else:
                self._add(incident, until_us)
        self._close_unreported(until_us)

    def within(self, intervals: list[Interval]) -> list[Incident]:
        """Returns the incidents that touch any of the intervals, by time, GPU and state."""
        found = []
        for incident in self._incidents:
            if any(_touches(incident, interval) for interval in intervals):
                found.append(incident)
        found.sort(key=_by_time)
        return found

    def _add_excused(self, incident: Incident) -> None:
        """Joins maintenance with that of the window before, where it goes on."""
        if self._excused is not None:
            before = self._incidents[self._excused]
            if before.until == incident.since:
                self._incidents[self._excused] = replace(before, until=incident.until)
                return
        self._excused = len(self._incidents)
        self._incidents.append(incident)

    def _add(self, incident: Incident, until_us: int) -> None:
        key = _Key(incident.gpu, incident.state, incident.reason)
        before = self._open.pop(key, None)
        if before is not None and _continues(incident, before):
            index = before.index
            since = self._incidents[index].since
            self._incidents[index] = replace(incident, since=since)
        else:
            index = len(self._incidents)
            self._incidents.append(incident)
        if incident.until is None:
            self._open[key] = _Open(index, until_us)

    def _close_unreported(self, until_us: int) -> None:
        """Ends the incidents that an earlier report left open and this one does not tell.

        Such an incident is known to the end of that earlier report.
        """
        for key, still_open in list(self._open.items()):
            if still_open.reported_until_us < until_us:
                ended_at = from_microseconds(still_open.reported_until_us)
                incident = self._incidents[still_open.index]
                self._incidents[still_open.index] = replace(incident, until=ended_at)
                del self._open[key]


def _continues(incident: Incident, before: _Open) -> bool:
    return microseconds(incident.since) <= before.reported_until_us + CLOCK_JITTER_US


def _by_time(incident: Incident) -> tuple[datetime, str, str]:
    return incident.since, incident.gpu or "", incident.state


def _touches(incident: Incident, interval: Interval) -> bool:
    since_us = microseconds(incident.since)
    if since_us >= interval.end:
        return False
    if since_us >= interval.begin or incident.until is None:
        return True
    return microseconds(incident.until) > interval.begin
