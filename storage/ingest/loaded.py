"""What ingest remembers of the file between batches: its names, and which numbers it holds.

Loaded at each opening; when retention lets outcomes go, their numbers are forgotten as the next opening would.
"""

from collections.abc import Iterable

from storage.archive.day_folders import retention_cutoff_us
from storage.engine.bounds import FIRST_US, LAST_US
from storage.engine.database import Connection, listed, rows_of, sql
from storage.engine.dictionary import Dictionaries
from storage.engine.partitions import Partitions
from storage.ingest.sequences import SequenceRanges


def load_names(connection: Connection) -> Dictionaries:
    """The names that the file has numbers for."""
    agents = rows_of(connection, "SELECT agent_id, agent FROM agents ORDER BY agent")
    gpu_sets = rows_of(connection, "SELECT gpus, gpu_set FROM gpu_sets ORDER BY gpu_set")
    return Dictionaries(
        [(name, number) for name, number in agents], [(name, number) for name, number in gpu_sets]
    )


def load_sequences(
    connection: Connection, partitions: Partitions, restarted: dict[int, int]
) -> SequenceRanges:
    """The numbers that the file holds. Only agents with gaps or restarts need a look at each row.

    `restarted`: the moment at which an agent's numbers last began again.
    """
    numbering = SequenceRanges()
    until_us = retention_cutoff_us(connection)
    spans = rows_of(connection, partitions.fill(sql("numbers_held")))
    uneven = {
        agent
        for agent, first, last, held in spans
        if agent in restarted or last - first + 1 != held
    }
    runs = {agent: [(first, last)] for agent, first, last, _ in spans if agent not in uneven}
    if uneven:
        text = partitions.fill(sql("runs_held"))
        for agent, first, last in rows_of(connection, text, {"agents": listed(uneven)}):
            runs.setdefault(agent, []).append((first, last))
    settled = missing_before_restart(connection, partitions, restarted)
    for agent, held in runs.items():
        whole = until_us <= restarted.get(agent, 0)
        numbering.load(
            agent, held, base=0 if whole else held[0][0] - 1, settled=settled.get(agent, 0)
        )
    if until_us > FIRST_US:
        for (agent,) in rows_of(connection, "SELECT agent FROM agents"):
            if agent not in runs:
                numbering.let_go(agent)
    return numbering


def let_go(
    connection: Connection,
    partitions: Partitions,
    restarted: dict[int, int],
    numbering: SequenceRanges,
) -> None:
    """Retention let outcomes go: their numbers are neither held nor missing any more."""
    until_us = retention_cutoff_us(connection)
    firsts = {
        agent: first
        for agent, first, _, _ in rows_of(connection, partitions.fill(sql("numbers_held")))
    }
    settled = missing_before_restart(connection, partitions, restarted)
    for (agent,) in rows_of(connection, "SELECT agent FROM agents"):
        numbering.settle(agent, settled.get(agent, 0))
        if restarted.get(agent, 0) < until_us:
            numbering.let_go(agent, firsts.get(agent))


def missing_before_restart(
    connection: Connection,
    partitions: Partitions,
    agents: Iterable[int],
    since_us: int = FIRST_US,
    until_us: int = LAST_US,
) -> dict[int, int]:
    """Numbers missing by agent in a period, in numberings that have ended; agents that miss none may be left out."""
    asked = {"agents": listed(agents), "since_us": since_us}
    from_us = rows_of(connection, sql("numberings_begin"), asked)[0][0]
    if from_us is None:
        return {}
    text = partitions.fill(sql("missing_before_restart"), from_us, until_us)
    return dict(rows_of(connection, text, asked | {"until_us": until_us}))
