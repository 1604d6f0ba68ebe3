"""Loads what ingest remembers between batches: the dictionaries, and which numbers history has.

They are loaded when the file is opened. When retention expires outcomes, their numbers are removed,
with the same result as loading again.
"""

from collections.abc import Iterable
from typing import NamedTuple

from storage.archive.day_folders import retention_cutoff_us
from storage.engine.bounds import FIRST_US, LAST_US
from storage.engine.database import Connection, listed, rows_as, rows_of, sql, value_of
from storage.engine.dictionary import Dictionaries
from storage.engine.partitions import Partitions
from storage.ingest.sequences import SequenceRanges


class _Name(NamedTuple):
    name: str
    number: int


class _HeldNumbers(NamedTuple):
    """A row of `held_numbers.sql`."""

    agent: int
    first: int
    last: int
    held: int


class _HeldRange(NamedTuple):
    """A row of `held_ranges.sql`."""

    agent: int
    first: int
    last: int


class _MissingNumbers(NamedTuple):
    """A row of `missing_before_restart.sql`."""

    agent: int
    missing: int


class _Restart(NamedTuple):
    agent: int
    pinged_us: int


def load_names(connection: Connection) -> Dictionaries:
    """Returns the dictionaries of the history file."""
    agents = rows_as(_Name, connection, "SELECT agent_id, agent FROM agents ORDER BY agent")
    gpu_sets = rows_as(_Name, connection, "SELECT gpus, gpu_set FROM gpu_sets ORDER BY gpu_set")
    return Dictionaries(agents, gpu_sets)


def load_restarts(connection: Connection) -> dict[int, int]:
    """Returns the time of each agent's last restart, in microseconds."""
    text = "SELECT agent, max(pinged_us) FROM restarts GROUP BY agent"
    return {row.agent: row.pinged_us for row in rows_as(_Restart, connection, text)}


def load_sequences(
    connection: Connection,
    partitions: Partitions,
    restarted: dict[int, int],
) -> SequenceRanges:
    """Returns the numbers that the file has.

    Only agents with gaps or restarts need a look at each row.

    `restarted` has the time of each agent's last restart.
    """
    ranges = _held_ranges(connection, partitions, restarted)
    missing = missing_before_restart(connection, partitions, restarted)
    cutoff_us = retention_cutoff_us(connection)
    sequences = SequenceRanges()
    for agent, held in ranges.items():
        base = 0
        if cutoff_us > restarted.get(agent, 0):
            # Some of the numbers since the last restart may have expired: those before the first
            # are not missing.
            base = held[0][0] - 1
        sequences.load(agent, held, base=base, missing_before_restart=missing.get(agent, 0))
    if cutoff_us > FIRST_US:
        for agent in _all_agents(connection):
            if agent not in ranges:
                sequences.expire(agent)
    return sequences


def _held_ranges(
    connection: Connection,
    partitions: Partitions,
    restarted: dict[int, int],
) -> dict[int, list[tuple[int, int]]]:
    ranges: dict[int, list[tuple[int, int]]] = {}
    uneven = []
    for numbers in rows_as(_HeldNumbers, connection, partitions.fill(sql("held_numbers"))):
        without_gap = numbers.last - numbers.first + 1 == numbers.held
        if without_gap and numbers.agent not in restarted:
            ranges[numbers.agent] = [(numbers.first, numbers.last)]
        else:
            uneven.append(numbers.agent)
    if uneven:
        text = partitions.fill(sql("held_ranges"))
        for run in rows_as(_HeldRange, connection, text, {"agents": listed(uneven)}):
            ranges.setdefault(run.agent, []).append((run.first, run.last))
    return ranges


def expire_numbers(
    connection: Connection,
    partitions: Partitions,
    restarted: dict[int, int],
    sequences: SequenceRanges,
) -> None:
    """Removes the numbers of outcomes that retention has expired. They are not missing either."""
    cutoff_us = retention_cutoff_us(connection)
    first = {}
    for numbers in rows_as(_HeldNumbers, connection, partitions.fill(sql("held_numbers"))):
        first[numbers.agent] = numbers.first
    missing = missing_before_restart(connection, partitions, restarted)
    for agent in _all_agents(connection):
        sequences.set_missing_before_restart(agent, missing.get(agent, 0))
        if restarted.get(agent, 0) < cutoff_us:
            sequences.expire(agent, first.get(agent))


def missing_before_restart(
    connection: Connection,
    partitions: Partitions,
    agents: Iterable[int],
    since_us: int = FIRST_US,
    until_us: int = LAST_US,
) -> dict[int, int]:
    """Returns how many numbers from before each agent's last restart are missing in a period.

    Agents that miss none may be left out.
    """
    parameters = {"agents": listed(agents), "since_us": since_us}
    from_us: int | None = value_of(connection, sql("numbering_start"), parameters)
    if from_us is None:
        return {}
    text = partitions.fill(sql("missing_before_restart"), from_us, until_us)
    parameters["until_us"] = until_us
    found = rows_as(_MissingNumbers, connection, text, parameters)
    return {row.agent: row.missing for row in found}


def _all_agents(connection: Connection) -> list[int]:
    return [agent for (agent,) in rows_of(connection, "SELECT agent FROM agents")]
