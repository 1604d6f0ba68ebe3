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
import numpy as np
import structlog
from msgspec import Struct, structs
from msgspec.structs import replace

from storage.archive import inspection
from storage.archive.day_folders import retention_cutoff_us
from storage.engine import rollups
from storage.engine.database import Connection, execute_all, listed, rows_of, sql, transaction
from storage.engine.errors import FlawedError
from storage.engine.partitions import DAY_US, Partitions
from storage.engine.rows import Arrival, HealthyRows, Poisoned
from storage.ingest.decode import DecodedBatch
from storage.ingest.dedup import Deduplicator, Key, NewOutcomes
from storage.ingest.detail_rows import evidence_rows, gpu_rows, incident_rows, ping_row
from storage.ingest.loaded import let_go, load_names, load_sequences

log = structlog.get_logger("storage")

_encode_lines = msgspec.json.Encoder().encode_lines
# what one row can bring about, in the database or on the way there
_ROW_ERRORS = (
    duckdb.DataError, duckdb.InvalidInputException, duckdb.ConstraintException, TypeError, ValueError, OverflowError,
)  # fmt: skip


class Position(Struct, frozen=True):
    """How far a stream (named by its creation time) has been taken in, and what its last message looked like."""

    stream_us: int
    sequence: int
    fingerprint: str


class WriteResult(Struct, frozen=True):
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
        restarted = dict(
            rows_of(connection, "SELECT agent, max(pinged_us) FROM restarts GROUP BY agent")
        )
        self.sequences = load_sequences(connection, partitions, restarted)
        self._novelty = Deduplicator(
            self.sequences, restarted, self._held, retention_cutoff_us(connection)
        )
        self.position = _position(connection)
        self.rows = self._count()
        self.poisoned = rows_of(connection, "SELECT count(*) FROM poisoned")[0][0]
        live_us = rows_of(connection, "SELECT max(pinged_us) FROM pings")[0][0]
        archived_us = [(day + 1) * DAY_US - 1 for day in partitions.days]
        self.newest_us = max(
            [*archived_us, live_us or 0]
        )  # of a day that is archived, its end: near enough

    def write(self, stream_us: int, batch: list[Arrival], taken: DecodedBatch) -> WriteResult:
        """One transaction. Rows that the database refuses are told apart by halving, and set aside."""
        return self._write(stream_us, batch, taken, range(len(batch)))

    def let_go(self) -> None:
        """What retention has let go is no longer counted, held or missing."""
        rows = self._count()
        if rows != self.rows:
            let_go(self.connection, self.partitions, self._novelty.restarted, self.sequences)
            self._novelty.retention_cutoff_us = retention_cutoff_us(self.connection)
            self.rows = rows

    def _count(self) -> int:
        return sum(row[0] for row in rows_of(self.connection, sql("count_rows")))

    def _write(
        self, stream_us: int, batch: list[Arrival], taken: DecodedBatch, part: range
    ) -> WriteResult:
        try:
            return self._commit(stream_us, batch[part.start : part.stop], taken.within(part))
        except _ROW_ERRORS as error:
            if len(part) == 1:
                self._blame_archive(error, taken.within(part))
                refused = {part.start: Poisoned(batch[part.start], f"{error}"[:500])}
                nothing = taken.within(range(0))
                return self._commit(
                    stream_us, [batch[part.start]], replace(nothing, poisoned=refused)
                )
        middle = len(part) // 2
        halves = [
            self._write(stream_us, batch, taken, half) for half in (part[:middle], part[middle:])
        ]
        return WriteResult(*map(sum, zip(*map(structs.astuple, halves), strict=True)))

    def _blame_archive(self, error: Exception, taken: DecodedBatch) -> None:
        """A damaged partition of the outcome's day shows in the same errors; the outcome is right then.

        Raises FlawedError.
        """
        days = np.unique(taken.outcomes().pinged_us // DAY_US).tolist()
        if flaws := inspection.find_flaws(self.partitions, days, error):
            raise FlawedError("; ".join(flaws.values()))

    def _commit(self, stream_us: int, batch: list[Arrival], taken: DecodedBatch) -> WriteResult:
        outcomes = taken.outcomes()
        fresh = self._novelty.find(outcomes)
        pinged_us = outcomes.pinged_us[fresh.places]
        position = _reached(self.position, stream_us, batch)
        self._write_names()
        with transaction(self.connection):
            self._insert(taken, fresh)
            set_aside = [one for one in taken.poisoned.values() if self._set_aside(one, stream_us)]
            rollups.sum_again(self.connection, self.partitions, pinged_us)
            execute_all(self.connection, sql("set_position"), structs.asdict(position))
        self.position = position
        if len(pinged_us):
            self.newest_us = max(self.newest_us, int(pinged_us[-1]))
        return self._remember(taken, fresh, set_aside)

    def _write_names(self) -> None:
        """Before the rows that use them, in a transaction of their own: no row that is refused takes a name with it."""
        agents, gpu_sets = self.names.agents.new(), self.names.gpu_sets.new()
        if agents or gpu_sets:
            with transaction(self.connection):
                self._put(
                    "insert_agents",
                    [{"agent": number, "agent_id": name} for number, name in agents],
                )
                self._put(
                    "insert_gpu_sets",
                    [{"gpu_set": number, "gpus": name} for number, name in gpu_sets],
                )
            self.names.agents.written(len(agents))
            self.names.gpu_sets.written(len(gpu_sets))

    def _held(self, keys: list[Key]) -> list[Key]:
        """Which of these outcomes are in the file."""
        if not keys:
            return []
        times = [key[2] for key in keys]
        text = self.partitions.fill(sql("held"), min(times), max(times))
        asked = [
            {"agent": agent, "ping_seq": number, "pinged_us": pinged}
            for agent, number, pinged in keys
        ]
        parameters = {"rows": listed(asked), "since_us": min(times), "until_us": max(times)}
        return [(row[0], row[1], row[2]) for row in rows_of(self.connection, text, parameters)]

    def _insert(self, taken: DecodedBatch, fresh: NewOutcomes) -> None:
        among_healthy = fresh.places < len(taken.healthy)
        self._insert_healthy(taken.healthy.take(fresh.places[among_healthy]))
        others = list(taken.full.values())
        full = [
            others[place] for place in (fresh.places[~among_healthy] - len(taken.healthy)).tolist()
        ]
        self._put("insert_pings", [ping_row(row) for row in full])
        self._put("insert_gpus", [gpu for row in full for gpu in gpu_rows(row)])
        self._put("insert_incidents", [incident for row in full for incident in incident_rows(row)])
        self._put("insert_evidence", [evidence for row in full for evidence in evidence_rows(row)])
        self._put(
            "insert_restarts",
            [{"agent": agent, "pinged_us": pinged} for agent, _, pinged in fresh.restarts],
        )

    def _set_aside(self, one: Poisoned, stream_us: int) -> bool:
        """Whether it was not set aside before."""
        arrival = one.arrival
        row = {
            "stream_us": stream_us,
            "sequence": arrival.sequence,
            "subject": arrival.agent_id,
            "detail": one.detail,
            "payload": arrival.data,
        }
        return rows_of(self.connection, sql("insert_poisoned"), row) == [(1,)]

    def _insert_healthy(self, rows: HealthyRows) -> None:
        """DuckDB reads the columns where they are."""
        if len(rows):
            self.connection.register("healthy", structs.asdict(rows))
            self.connection.execute(sql("insert_healthy"))
            self.connection.unregister("healthy")

    def _put(self, statement: str, rows: list[Any]) -> None:
        """A line a row: `from_json` takes a third of the time that it needs for them in one list (measured)."""
        if rows:
            self.connection.execute(sql(statement), {"rows": _encode_lines(rows)[:-1].decode()})

    def _remember(
        self, taken: DecodedBatch, fresh: NewOutcomes, set_aside: list[Poisoned]
    ) -> WriteResult:
        before = self.sequences.missing
        gaps = self._novelty.remember(fresh)
        missing = self.sequences.missing
        name = self.names.agents.name
        for agent, number, _ in fresh.restarts:
            log.warning("ping_seq_restarted", agent_id=name(agent), ping_seq=number)
        if gaps:  # once a batch, not once an agent: a lost stream must not fill the disk with log
            among = [name(agent) for agent in gaps[:5]]
            log.warning(
                "ping_seq_missing", new=missing - before, all=missing, agents=len(gaps), among=among
            )
        for one in set_aside:
            log.error(
                "message_set_aside",
                sequence=one.arrival.sequence,
                of=one.arrival.agent_id,
                detail=one.detail,
            )
        rows = len(fresh.places)
        self.rows += rows
        self.poisoned += len(set_aside)
        duplicates = len(taken.healthy) + len(taken.full) - rows
        return WriteResult(rows, duplicates, len(set_aside), missing - before)


def fingerprint(data: bytes, agent_id: str) -> str:
    """Tells whether a message is still the one that stood there. Tombstones are empty: those are told by their key."""
    return hashlib.sha256(data or agent_id.encode()).hexdigest()[:32]


def _position(connection: Connection) -> Position | None:
    found = rows_of(connection, "SELECT stream_us, sequence, fingerprint FROM position")
    return Position(*found[0]) if found else None


def _reached(before: Position | None, stream_us: int, batch: list[Arrival]) -> Position:
    """Never backwards within one stream: what comes again changes nothing."""
    last = max(batch, key=attrgetter("sequence"))
    if before and before.stream_us == stream_us and before.sequence >= last.sequence:
        return before
    return Position(stream_us, last.sequence, fingerprint(last.data, last.agent_id))
