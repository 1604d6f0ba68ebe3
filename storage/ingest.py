"""Writes batches of messages into the history file: every outcome exactly once, whatever comes twice or late.

Rows and position share one transaction. An outcome is known by (agent, ping_seq, pinged_at), not by where it
stood in the stream: after a crash the server may number the tail of the stream anew. Runs in the thread that
owns the connection.
"""

import hashlib
from operator import attrgetter
from typing import Any

import duckdb
import msgspec
import structlog
from msgspec import Struct, structs

from storage import rollups
from storage.beside import evidence_rows, gpu_rows, incident_rows, ping_row
from storage.database import Connection, execute_all, listed, rows_of, sql, transaction
from storage.known import load_names, load_numbering
from storage.novelty import Fresh, Key, Novelty
from storage.partitions import Partitions
from storage.rows import Arrival, FullRow, HealthyRow, Poisoned, Row

log = structlog.get_logger("storage")

_encode_lines = msgspec.json.Encoder().encode_lines
_DATA_ERRORS = (duckdb.DataError, duckdb.InvalidInputException, duckdb.ConstraintException)


class Position(Struct, frozen=True):
    """How far a stream (named by its creation time) has been taken in, and what its last message looked like."""

    stream_us: int
    sequence: int
    fingerprint: str


class Written(Struct, frozen=True):
    """What came of a batch."""

    rows: int = 0
    duplicates: int = 0
    poisoned: int = 0
    missing: int = 0


class Ingest:
    """The writing side of an open history file, with what it must remember between batches."""

    def __init__(self, connection: Connection, partitions: Partitions) -> None:
        self.connection = connection
        self.partitions = partitions
        self.names = load_names(connection)
        restarted = dict(rows_of(connection, "SELECT agent, max(pinged_us) FROM restarts GROUP BY agent"))
        self.numbering = load_numbering(connection, partitions, set(restarted))
        self._novelty = Novelty(self.numbering, restarted, self._held)
        self.position = _position(connection)
        self.rows = sum(row[0] for row in rows_of(connection, partitions.fill(sql("count_rows"))))
        self.poisoned = rows_of(connection, "SELECT count(*) FROM poisoned")[0][0]
        self.newest_us = rows_of(connection, "SELECT max(pinged_us) FROM pings")[0][0] or 0

    def write(self, stream_us: int, batch: list[Arrival], taken: list[Row | Poisoned]) -> Written:
        """One transaction. Rows that the database refuses are told apart by halving, and set aside."""
        try:
            return self._commit(stream_us, batch, taken)
        except _DATA_ERRORS as error:
            if len(batch) == 1:
                return self._commit(stream_us, batch, [Poisoned(batch[0], f"{error}"[:500])])
        middle = len(batch) // 2
        one = self.write(stream_us, batch[:middle], taken[:middle])
        two = self.write(stream_us, batch[middle:], taken[middle:])
        return Written(*(a + b for a, b in zip(structs.astuple(one), structs.astuple(two), strict=True)))

    def _commit(self, stream_us: int, batch: list[Arrival], taken: list[Row | Poisoned]) -> Written:
        poisoned = [one for one in taken if isinstance(one, Poisoned)]
        fresh = self._novelty.find([one for one in taken if not isinstance(one, Poisoned)])
        position = _reached(self.position, stream_us, batch)
        self._write_names()
        with transaction(self.connection):
            self._insert(fresh, poisoned, stream_us)
            execute_all(self.connection, sql("set_position"), structs.asdict(position))
        self.position = position
        return self._remember(fresh, poisoned, len(taken))

    def _write_names(self) -> None:
        """Before the rows that use them, in a transaction of their own: no row that is refused takes a name with it."""
        agents, gpu_sets = self.names.agents.new(), self.names.gpu_sets.new()
        if agents or gpu_sets:
            with transaction(self.connection):
                self._put("insert_agents", [{"agent": number, "agent_id": name} for number, name in agents])
                self._put("insert_gpu_sets", [{"gpu_set": number, "gpus": name} for number, name in gpu_sets])
            self.names.agents.written(len(agents))
            self.names.gpu_sets.written(len(gpu_sets))

    def _held(self, keys: list[Key]) -> list[Key]:
        """Which of these outcomes are in the file."""
        if not keys:
            return []
        times = [key[2] for key in keys]
        text = self.partitions.fill(sql("held"), min(times), max(times))
        asked = [{"agent": agent, "ping_seq": number, "pinged_us": pinged} for agent, number, pinged in keys]
        parameters = {"rows": listed(asked), "since_us": min(times), "until_us": max(times)}
        return [(row[0], row[1], row[2]) for row in rows_of(self.connection, text, parameters)]

    def _insert(self, fresh: Fresh, poisoned: list[Poisoned], stream_us: int) -> None:
        self._put("insert_healthy", [row for row in fresh.rows if isinstance(row, HealthyRow)])
        full = [row for row in fresh.rows if isinstance(row, FullRow)]
        self._put("insert_pings", [ping_row(row) for row in full])
        self._put("insert_gpus", [gpu for row in full for gpu in gpu_rows(row)])
        self._put("insert_incidents", [incident for row in full for incident in incident_rows(row)])
        self._put("insert_evidence", [evidence for row in full for evidence in evidence_rows(row)])
        restarts = [{"agent": row.agent, "pinged_us": row.pinged_us} for row in fresh.restarts]
        self._put("insert_restarts", restarts)
        for one in poisoned:
            arrival = one.arrival
            row = [stream_us, arrival.sequence, arrival.agent_id, one.detail, arrival.data]
            self.connection.execute("INSERT INTO poisoned VALUES ($1, $2, $3, $4, $5)", row)
        rollups.make_again(self.connection, self.partitions, [row.pinged_us for row in fresh.rows])

    def _put(self, statement: str, rows: list[Any]) -> None:
        """A line a row: `from_json` takes a third of the time that it needs for them in one list (measured)."""
        if rows:
            self.connection.execute(sql(statement), {"rows": _encode_lines(rows)[:-1].decode()})

    def _remember(self, fresh: Fresh, poisoned: list[Poisoned], taken: int) -> Written:
        before = self.numbering.missing
        gaps = self._novelty.remember(fresh)
        missing = self.numbering.missing
        name = self.names.agents.name
        for row in fresh.restarts:
            log.warning("ping_seq_restarted", agent_id=name(row.agent), ping_seq=row.ping_seq)
        if gaps:  # once a batch, not once an agent: a lost stream must not fill the disk with log
            among = [name(agent) for agent in gaps[:5]]
            log.warning("ping_seq_missing", new=missing - before, all=missing, agents=len(gaps), among=among)
        for one in poisoned:
            log.error("message_set_aside", sequence=one.arrival.sequence, of=one.arrival.agent_id, detail=one.detail)
        rows = len(fresh.rows)
        if rows:
            self.newest_us = max(self.newest_us, fresh.rows[-1].pinged_us)
        self.rows += rows
        self.poisoned += len(poisoned)
        return Written(rows, taken - rows - len(poisoned), len(poisoned), missing - before)


def fingerprint(data: bytes) -> str:
    """Tells whether a message is still the one that stood there."""
    return hashlib.sha256(data).hexdigest()[:32]


def _position(connection: Connection) -> Position | None:
    found = rows_of(connection, "SELECT stream_us, sequence, fingerprint FROM position")
    return Position(*found[0]) if found else None


def _reached(before: Position | None, stream_us: int, batch: list[Arrival]) -> Position:
    """Never backwards within one stream: what comes again changes nothing."""
    last = max(batch, key=attrgetter("sequence"))
    if before and before.stream_us == stream_us and before.sequence >= last.sequence:
        return before
    return Position(stream_us, last.sequence, fingerprint(last.data))
