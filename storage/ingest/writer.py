"""Writes batches of messages into the history file, every outcome once.

Rows and position share one transaction. An outcome is identified by (agent, ping_seq, pinged_at)
and not by its sequence number in the stream, for after a crash the server may number the end of the
stream again. All of this runs in the thread that owns the connection.
"""

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
from storage.engine.columns import insert_statement
from storage.engine.database import (
    Connection,
    execute_all,
    listed,
    rows_as,
    rows_of,
    sql,
    transaction,
    value_of,
)
from storage.engine.errors import FlawedError
from storage.engine.partitions import DAY_US, Partitions
from storage.engine.rows import Arrival, HealthyRows, Poisoned
from storage.ingest.decode import DecodedBatch
from storage.ingest.dedup import Deduplicator, Key, NewOutcomes
from storage.ingest.detail_rows import evidence_rows, gpu_rows, incident_rows, ping_row
from storage.ingest.loaded import expire_numbers, load_names, load_restarts, load_sequences
from storage.ingest.position import Position, position_after

log = structlog.get_logger("storage")

_encode_lines = msgspec.json.Encoder().encode_lines

# What a single row can raise, in the database or on the way into it.
_ROW_ERRORS = (
    duckdb.DataError,
    duckdb.InvalidInputException,
    duckdb.ConstraintException,
    TypeError,
    ValueError,
    OverflowError,
)

# How many agents a log line about missing numbers names.
_AGENTS_NAMED = 5


class WriteResult(Struct, frozen=True):
    """What became of a batch: new outcomes, those that came again, and poisoned messages.

    `missing` is how many more numbers are missing after it.
    """

    rows: int = 0
    duplicates: int = 0
    poisoned: int = 0
    missing: int = 0

    def __add__(self, other: "WriteResult") -> "WriteResult":
        return WriteResult(
            rows=self.rows + other.rows,
            duplicates=self.duplicates + other.duplicates,
            poisoned=self.poisoned + other.poisoned,
            missing=self.missing + other.missing,
        )


class Ingest:
    """The writing side of an open history file, with what it remembers between batches.

    `newest_us` is the time of the newest outcome, or the end of its day where that day is archived.
    """

    def __init__(self, connection: Connection, partitions: Partitions) -> None:
        restarted = load_restarts(connection)
        self.connection = connection
        self.partitions = partitions
        self.names = load_names(connection)
        self.sequences = load_sequences(connection, partitions, restarted)
        self.position = _load_position(connection)
        self.rows = self._count_rows()
        self.poisoned = value_of(connection, "SELECT count(*) FROM poisoned")
        self.newest_us = _newest_us(connection, partitions)
        self._deduplicator = Deduplicator(
            self.sequences,
            restarted,
            self._find_stored,
            retention_cutoff_us(connection),
        )

    def write(
        self,
        stream_us: int,
        batch: list[Arrival],
        decoded: DecodedBatch,
    ) -> WriteResult:
        """Writes a batch in one transaction. `stream_us` is the creation time of the stream.

        When the database refuses a row, the batch is halved until the row is found, and its message
        is set aside. Raises FlawedError when a partition of the archive is to blame.
        """
        return self._write_part(stream_us, batch, decoded, range(len(batch)))

    def expire(self) -> None:
        """Removes what retention has expired from what is remembered.

        Does nothing when no row is gone.
        """
        rows = self._count_rows()
        if rows == self.rows:
            return
        restarted = self._deduplicator.restarted
        expire_numbers(self.connection, self.partitions, restarted, self.sequences)
        self._deduplicator.retention_cutoff_us = retention_cutoff_us(self.connection)
        self.rows = rows

    def _count_rows(self) -> int:
        return sum(count for (count,) in rows_of(self.connection, sql("count_rows")))

    def _write_part(
        self,
        stream_us: int,
        batch: list[Arrival],
        decoded: DecodedBatch,
        part: range,
    ) -> WriteResult:
        try:
            return self._commit(stream_us, batch[part.start : part.stop], decoded.within(part))
        except _ROW_ERRORS as error:
            if len(part) == 1:
                return self._set_aside_refused(stream_us, batch, decoded, part, error)
        middle = len(part) // 2
        first = self._write_part(stream_us, batch, decoded, part[:middle])
        second = self._write_part(stream_us, batch, decoded, part[middle:])
        return first + second

    def _set_aside_refused(
        self,
        stream_us: int,
        batch: list[Arrival],
        decoded: DecodedBatch,
        part: range,
        error: Exception,
    ) -> WriteResult:
        """Sets the one message of `part` aside, whose row the database refused."""
        self._blame_archive(error, decoded.within(part))
        arrival = batch[part.start]
        refused = {part.start: Poisoned(arrival, str(error)[:500])}
        nothing = decoded.within(range(0))
        return self._commit(stream_us, [arrival], replace(nothing, poisoned=refused))

    def _blame_archive(self, error: Exception, decoded: DecodedBatch) -> None:
        """Raises FlawedError when a partition of the outcome's day is damaged.

        Then the outcome is not to blame, though both show in the same errors.
        """
        days = np.unique(decoded.outcomes().pinged_us // DAY_US).tolist()
        flaws = inspection.find_flaws(self.partitions, days, error)
        if flaws:
            raise FlawedError("; ".join(flaws.values()))

    def _commit(
        self,
        stream_us: int,
        batch: list[Arrival],
        decoded: DecodedBatch,
    ) -> WriteResult:
        outcomes = decoded.outcomes()
        new = self._deduplicator.find(outcomes)
        pinged_us = outcomes.pinged_us[new.indices]
        position = position_after(self.position, stream_us, batch)
        self._write_names()
        set_aside = []
        with transaction(self.connection):
            self._insert_outcomes(decoded, new)
            for poisoned in decoded.poisoned.values():
                if self._insert_poisoned(poisoned, stream_us):
                    set_aside.append(poisoned)
            rollups.sum_again(self.connection, self.partitions, pinged_us)
            execute_all(self.connection, sql("set_position"), structs.asdict(position))
        if len(pinged_us):
            self.newest_us = max(self.newest_us, int(pinged_us[-1]))
        result = self._remember(decoded, new, set_aside)
        # Last: whoever reads it from another thread finds the counts of what it has passed.
        self.position = position
        return result

    def _write_names(self) -> None:
        """Writes new names, in a transaction before the rows that use them.

        So a row that is refused does not take a name with it which other rows use.
        """
        agents = self.names.agents.new()
        gpu_sets = self.names.gpu_sets.new()
        if not agents and not gpu_sets:
            return
        agent_rows = [{"agent": number, "agent_id": name} for number, name in agents]
        gpu_set_rows = [{"gpu_set": number, "gpus": name} for number, name in gpu_sets]
        with transaction(self.connection):
            self._insert("agents", agent_rows)
            self._insert("gpu_sets", gpu_set_rows)
        self.names.agents.written(len(agents))
        self.names.gpu_sets.written(len(gpu_sets))

    def _find_stored(self, keys: list[Key]) -> list[Key]:
        """Returns which of these outcomes are in the history file or its archive."""
        if not keys:
            return []
        times = [key.pinged_us for key in keys]
        since_us = min(times)
        until_us = max(times)
        text = self.partitions.fill(sql("find_stored"), since_us, until_us)
        parameters = {
            "rows": listed(key._asdict() for key in keys),
            "since_us": since_us,
            "until_us": until_us,
        }
        return rows_as(Key, self.connection, text, parameters)

    def _insert_outcomes(self, decoded: DecodedBatch, new: NewOutcomes) -> None:
        """Inserts the new ones.

        An index below the number of healthy rows is one of those, others are full rows.
        """
        healthy_count = len(decoded.healthy)
        is_healthy = new.indices < healthy_count
        self._insert_healthy(decoded.healthy.take(new.indices[is_healthy]))
        full_rows = list(decoded.full.values())
        pings: list[dict[str, Any]] = []
        gpus: list[dict[str, Any]] = []
        incidents: list[dict[str, Any]] = []
        evidence: list[dict[str, Any]] = []
        for index in (new.indices[~is_healthy] - healthy_count).tolist():
            row = full_rows[index]
            pings.append(ping_row(row))
            gpus += gpu_rows(row)
            incidents += incident_rows(row)
            evidence += evidence_rows(row)
        self._insert("pings", pings)
        self._insert("gpus", gpus)
        self._insert("incidents", incidents)
        self._insert("evidence", evidence)
        restarts = [{"agent": key.agent, "pinged_us": key.pinged_us} for key in new.restarts]
        self._insert("restarts", restarts)

    def _insert_poisoned(self, poisoned: Poisoned, stream_us: int) -> bool:
        """Returns False where the same message was set aside before."""
        arrival = poisoned.arrival
        row = {
            "stream_us": stream_us,
            "sequence": arrival.sequence,
            "subject": arrival.agent_id,
            "detail": poisoned.detail,
            "payload": arrival.data,
        }
        return bool(value_of(self.connection, sql("insert_poisoned"), row) == 1)

    def _insert_healthy(self, rows: HealthyRows) -> None:
        """DuckDB reads the arrays in place, which needs no conversion of a value."""
        if len(rows) == 0:
            return
        self.connection.register("healthy", structs.asdict(rows))
        self.connection.execute(sql("insert_healthy"))
        self.connection.unregister("healthy")

    def _insert(self, table: str, rows: list[dict[str, Any]]) -> None:
        """Inserts rows as JSON, a line each.

        In one JSON list they would take three times as long (measured).
        """
        if not rows:
            return
        lines = _encode_lines(rows).decode().removesuffix("\n")
        self.connection.execute(insert_statement(table), {"rows": lines})

    def _remember(
        self,
        decoded: DecodedBatch,
        new: NewOutcomes,
        set_aside: list[Poisoned],
    ) -> WriteResult:
        """Remembers what has been committed, and logs what an operator should know."""
        missing_before = self.sequences.missing
        agents_with_gaps = self._deduplicator.remember(new)
        missing = self.sequences.missing - missing_before
        name = self.names.agents.name
        for key in new.restarts:
            log.warning("ping_seq_restarted", agent_id=name(key.agent), ping_seq=key.ping_seq)
        if agents_with_gaps:
            # Once a batch and not once an agent: a lost stream must not fill the disk with log.
            log.warning(
                "ping_seq_missing",
                new=missing,
                all=self.sequences.missing,
                agents=len(agents_with_gaps),
                among=[name(agent) for agent in agents_with_gaps[:_AGENTS_NAMED]],
            )
        for poisoned in set_aside:
            arrival = poisoned.arrival
            log.error(
                "message_set_aside",
                sequence=arrival.sequence,
                of=arrival.agent_id,
                detail=poisoned.detail,
            )
        rows = len(new.indices)
        self.rows += rows
        self.poisoned += len(set_aside)
        duplicates = len(decoded.healthy) + len(decoded.full) - rows
        return WriteResult(rows, duplicates, len(set_aside), missing)


def _load_position(connection: Connection) -> Position | None:
    text = "SELECT stream_us, sequence, fingerprint FROM position"
    for position in rows_as(Position, connection, text):
        return position
    return None


def _newest_us(connection: Connection, partitions: Partitions) -> int:
    newest_us: int = value_of(connection, "SELECT max(pinged_us) FROM pings") or 0
    for day in partitions.days:
        newest_us = max(newest_us, (day + 1) * DAY_US - 1)
    return newest_us
