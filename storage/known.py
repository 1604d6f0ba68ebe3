"""What ingest remembers of the file between batches: its names, and which numbers it holds. Loaded at each opening."""

from storage.database import Connection, listed, rows_of, sql
from storage.names import Names
from storage.numbering import Numbering
from storage.partitions import Partitions


def load_names(connection: Connection) -> Names:
    """The names that the file has numbers for."""
    agents = rows_of(connection, "SELECT agent_id, agent FROM agents ORDER BY agent")
    gpu_sets = rows_of(connection, "SELECT gpus, gpu_set FROM gpu_sets ORDER BY gpu_set")
    return Names([(name, number) for name, number in agents], [(name, number) for name, number in gpu_sets])


def load_numbering(connection: Connection, partitions: Partitions, restarted: set[int]) -> Numbering:
    """The numbers that the file holds. Only agents with gaps or restarts need a look at each row."""
    numbering = Numbering()
    forgot = bool(rows_of(connection, "SELECT 1 FROM forgotten"))
    spans = rows_of(connection, partitions.fill(sql("numbers_held")))
    uneven = {agent for agent, first, last, held in spans if agent in restarted or last - first + 1 != held}
    for agent, first, last, _ in spans:
        if agent not in uneven:
            numbering.load(agent, [(first, last)], base=first - 1 if forgot else 0)
    if not uneven:
        return numbering
    settled = dict(rows_of(connection, partitions.fill(sql("missing_before_restart")))) if restarted else {}
    runs: dict[int, list[tuple[int, int]]] = {}
    for agent, first, last in rows_of(connection, partitions.fill(sql("runs_held")), {"agents": listed(uneven)}):
        runs.setdefault(agent, []).append((first, last))
    for agent, held in runs.items():
        base = held[0][0] - 1 if forgot and agent not in restarted else 0
        numbering.load(agent, held, base=base, settled=settled.get(agent, 0))
    return numbering
