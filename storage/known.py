"""What ingest remembers of the file between batches: its names, and which numbers it holds. Loaded at each opening."""

import msgspec

from storage.database import Connection, listed, rows_of, sql
from storage.numbering import Numbering
from storage.partitions import Partitions
from storage.rows import Entry


class Known:
    """The names that the file has numbers for. Numbers are dense, in the order of the dictionaries."""

    def __init__(self, connection: Connection) -> None:
        self.agents = {a: n for n, a in rows_of(connection, "SELECT agent, agent_id FROM agents ORDER BY agent")}
        self.gpu_sets = {g: n for n, g in rows_of(connection, "SELECT gpu_set, gpus FROM gpu_sets ORDER BY gpu_set")}
        self._ids: list[str] = []
        self._gpus: list[str] = []

    def agent_id(self, number: int) -> str:
        """The agent's id."""
        if number >= len(self._ids):
            self._ids = list(self.agents)
        return self._ids[number]

    def gpus(self, number: int) -> list[tuple[str, int | None, str]]:
        """A set of GPUs: uuid, index and name of each."""
        if number >= len(self._gpus):
            self._gpus = list(self.gpu_sets)
        return msgspec.json.decode(self._gpus[number], type=list[tuple[str, int | None, str]])


class NewNames:
    """Numbers for the names in a batch; new ones become known when the transaction is committed."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self.agents: dict[str, int] = {}
        self.gpu_sets: dict[str, int] = {}

    def number(self, entries: list[Entry]) -> None:
        """Puts the numbers into the rows."""
        agents, gpu_sets = self._known.agents, self._known.gpu_sets
        for entry in entries:
            row = entry.ping
            agent = agents.get(entry.agent_id)
            row.agent = self._new(entry.agent_id, agents, self.agents) if agent is None else agent
            if entry.gpu_names is not None:
                gpu_set = gpu_sets.get(entry.gpu_names)
                row.gpu_set = self._new(entry.gpu_names, gpu_sets, self.gpu_sets) if gpu_set is None else gpu_set

    def become_known(self) -> None:
        """They are in the file."""
        self._known.agents |= self.agents
        self._known.gpu_sets |= self.gpu_sets

    @staticmethod
    def _new(name: str, known: dict[str, int], new: dict[str, int]) -> int:
        return new.setdefault(name, len(known) + len(new))


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
