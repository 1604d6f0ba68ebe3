"""Writes batches of messages into the history file: every outcome exactly once, whatever comes twice or late.

Rows and position share one transaction. An outcome is known by (agent, ping_seq, pinged_at), not by where it
stood in the stream: after a crash the server may number the tail of the stream anew. Runs in the thread that
owns the connection.
"""

import hashlib
from typing import Any

import duckdb
import msgspec
import structlog
from msgspec import Struct, structs

from bus.messages import GpuReport
from storage import rollups
from storage.database import Connection, execute_all, rows_of, sql
from storage.known import Known, load_numbering
from storage.partitions import Partitions
from storage.rows import Arrival, Entry, PingRow, Poisoned, is_healthy, microseconds, milliseconds

log = structlog.get_logger("storage")

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
        self.known = Known(connection)
        self._restarted = dict(rows_of(connection, "SELECT agent, max(pinged_us) FROM restarts GROUP BY agent"))
        self.numbering = load_numbering(connection, partitions, set(self._restarted))
        self.position = _position(connection)
        self.rows = sum(row[0] for row in rows_of(connection, partitions.fill(sql("count_rows"))))
        self.poisoned = rows_of(connection, "SELECT count(*) FROM poisoned")[0][0]
        self.newest_us = rows_of(connection, "SELECT max(pinged_us) FROM pings")[0][0] or 0

    def write(self, stream_us: int, batch: list[Arrival], taken: list[Entry | Poisoned]) -> Written:
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

    def _commit(self, stream_us: int, batch: list[Arrival], taken: list[Entry | Poisoned]) -> Written:
        names = _Names(self.known.agents, self.known.gpu_sets)
        for entry in taken:
            if isinstance(entry, Entry):
                names.number(entry)
        poisoned = [entry for entry in taken if isinstance(entry, Poisoned)]
        fresh, restarts = self._fresh([entry for entry in taken if isinstance(entry, Entry)])
        position = _reached(self.position, stream_us, batch)
        self.connection.execute("BEGIN")
        try:
            self._insert(names, fresh, restarts, poisoned, stream_us)
            execute_all(self.connection, sql("set_position"), structs.asdict(position))
            self.connection.execute("COMMIT")
        except BaseException:
            _roll_back(self.connection)
            raise
        self.known.agents |= names.new_agents
        self.known.gpu_sets |= names.new_sets
        self.position = position
        return self._remember(fresh, restarts, poisoned, len(taken))

    def _fresh(self, entries: list[Entry]) -> tuple[list[Entry], list[Entry]]:
        """Outcomes that are not held yet, and those among them with which an agent's numbers began again."""
        certain: list[Entry] = []
        doubtful: dict[tuple[int, int, int], Entry] = {}
        numbers: set[tuple[int, int]] = set()
        for entry in entries:
            row = entry.ping
            known = row.agent in self._restarted or self.numbering.holds(row.agent, row.ping_seq)
            if known or (row.agent, row.ping_seq) in numbers:
                doubtful.setdefault((row.agent, row.ping_seq, row.pinged_us), entry)
            else:
                numbers.add((row.agent, row.ping_seq))
                certain.append(entry)
        certain.sort(key=lambda entry: entry.ping.pinged_us)  # packs tighter, and a day's rows lie together
        if not doubtful:
            return certain, []
        for entry in certain:
            row = entry.ping
            doubtful.pop((row.agent, row.ping_seq, row.pinged_us), None)
        for held in self._held(list(doubtful)):
            doubtful.pop(held, None)
        fresh = sorted(certain + list(doubtful.values()), key=lambda entry: entry.ping.pinged_us)
        return fresh, self._restarts(fresh)

    def _restarts(self, fresh: list[Entry]) -> list[Entry]:
        """New outcomes under numbers that are taken: with each of them an agent's numbers began again."""
        restarts: dict[int, Entry] = {}
        taken: set[tuple[int, int]] = set()
        for entry in fresh:
            agent, number = entry.ping.agent, entry.ping.ping_seq
            known = agent not in restarts and self.numbering.holds(agent, number)
            if (known or (agent, number) in taken) and entry.ping.pinged_us > self._restarted.get(agent, -1):
                restarts[agent] = entry
                taken = {key for key in taken if key[0] != agent}
            taken.add((agent, number))
        return list(restarts.values())

    def _held(self, keys: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
        if not keys:
            return []
        times = [key[2] for key in keys]
        text = self.partitions.fill(sql("held"), min(times), max(times))
        asked = [{"agent": agent, "ping_seq": number, "pinged_us": pinged} for agent, number, pinged in keys]
        parameters = {"rows": _json(asked), "since_us": min(times), "until_us": max(times)}
        return [(row[0], row[1], row[2]) for row in rows_of(self.connection, text, parameters)]

    def _insert(
        self, names: "_Names", fresh: list[Entry], restarts: list[Entry], poisoned: list[Poisoned], stream_us: int
    ) -> None:
        self._put("insert_agents", [{"agent": n, "agent_id": a} for a, n in names.new_agents.items()])
        self._put("insert_gpu_sets", [{"gpu_set": n, "gpus": g} for g, n in names.new_sets.items()])
        healthy, others = _parted(fresh)
        self._put("insert_healthy", healthy)
        self._put("insert_pings", [structs.asdict(ping) for ping in others])
        self._put("insert_gpus", [row for entry in fresh if entry.gpus for row in _gpu_rows(entry)])
        self._put("insert_incidents", [row for entry in fresh if entry.incidents for row in _incident_rows(entry)])
        self._put("insert_evidence", [row for entry in fresh if entry.evidence for row in _evidence_rows(entry)])
        for entry in restarts:
            self.connection.execute("INSERT INTO restarts VALUES ($1, $2)", [entry.ping.agent, entry.ping.pinged_us])
        for one in poisoned:
            arrival = one.arrival
            row = [stream_us, arrival.sequence, arrival.agent_id, one.detail, arrival.data]
            self.connection.execute("INSERT INTO poisoned VALUES ($1, $2, $3, $4, $5)", row)
        rollups.make_again(self.connection, self.partitions, [entry.ping.pinged_us for entry in fresh])

    def _put(self, statement: str, rows: list[Any]) -> None:
        if rows:
            self.connection.execute(sql(statement), {"rows": _json(rows)})

    def _remember(self, fresh: list[Entry], restarts: list[Entry], poisoned: list[Poisoned], taken: int) -> Written:
        before = self.numbering.missing
        self._restarted |= {entry.ping.agent: entry.ping.pinged_us for entry in restarts}
        begins = {id(entry) for entry in restarts}
        gaps = [entry.agent_id for entry in fresh if self._number(entry, id(entry) in begins) > 0]
        if gaps:  # once a batch, not once an agent: a lost stream must not fill the disk with log
            missing = self.numbering.missing
            log.warning("ping_seq_missing", new=missing - before, all=missing, agents=len(gaps), among=gaps[:5])
        for one in poisoned:
            log.error("message_set_aside", sequence=one.arrival.sequence, of=one.arrival.agent_id, detail=one.detail)
        self.newest_us = max([self.newest_us, *(entry.ping.pinged_us for entry in fresh)])
        self.rows += len(fresh)
        self.poisoned += len(poisoned)
        duplicates = taken - len(fresh) - len(poisoned)
        return Written(len(fresh), duplicates, len(poisoned), self.numbering.missing - before)

    def _number(self, entry: Entry, begins: bool) -> int:
        agent, number = entry.ping.agent, entry.ping.ping_seq
        if entry.ping.pinged_us < self._restarted.get(agent, 0):
            return 0  # of a numbering that has ended
        if begins:
            log.warning("ping_seq_restarted", agent_id=entry.agent_id, ping_seq=number)
            self.numbering.restart(agent)
        return self.numbering.add(agent, number)


def _parted(fresh: list[Entry]) -> tuple[list[PingRow], list[PingRow]]:
    """Healthy rows, and the others."""
    healthy: list[PingRow] = []
    others: list[PingRow] = []
    for entry in fresh:
        (healthy if is_healthy(entry.ping) else others).append(entry.ping)
    return healthy, others


class _Names:
    """Numbers for the names in a batch; new ones become known when the transaction is committed."""

    def __init__(self, agents: dict[str, int], sets: dict[str, int]) -> None:
        self._agents, self._sets = agents, sets
        self.new_agents: dict[str, int] = {}
        self.new_sets: dict[str, int] = {}

    def number(self, entry: Entry) -> None:
        entry.ping.agent = self._of(entry.agent_id, self._agents, self.new_agents)
        if entry.gpu_names is not None:
            entry.ping.gpu_set = self._of(entry.gpu_names, self._sets, self.new_sets)

    @staticmethod
    def _of(name: str, known: dict[str, int], new: dict[str, int]) -> int:
        number = known.get(name)
        return number if number is not None else new.setdefault(name, len(known) + len(new))


def fingerprint(data: bytes) -> str:
    """Tells whether a message is still the one that stood there."""
    return hashlib.sha256(data).hexdigest()[:32]


def _position(connection: Connection) -> Position | None:
    found = rows_of(connection, "SELECT stream_us, sequence, fingerprint FROM position")
    return Position(*found[0]) if found else None


def _reached(before: Position | None, stream_us: int, batch: list[Arrival]) -> Position:
    """Never backwards within one stream: what comes again changes nothing."""
    last = max(batch, key=lambda arrival: arrival.sequence)
    if before and before.stream_us == stream_us and before.sequence >= last.sequence:
        return before
    return Position(stream_us, last.sequence, fingerprint(last.data))


def _roll_back(connection: Connection) -> None:
    try:
        connection.execute("ROLLBACK")
    except duckdb.Error as error:  # the transaction is gone already: the first error tells more
        log.debug("rollback_refused", detail=str(error))


def _json(rows: list[Any]) -> str:
    return msgspec.json.encode(rows).decode()


def _key(entry: Entry) -> dict[str, Any]:
    return {"agent": entry.ping.agent, "ping_seq": entry.ping.ping_seq, "pinged_us": entry.ping.pinged_us}


def _gpu_rows(entry: Entry) -> list[dict[str, Any]]:
    return [_key(entry) | _gpu_row(place, gpu) for place, gpu in enumerate(entry.gpus)]


def _gpu_row(place: int, gpu: GpuReport) -> dict[str, Any]:
    seconds = {f"{name}_ms": milliseconds(value) for name, value in structs.asdict(gpu.seconds).items()}
    about = {"place": place, "uuid": gpu.uuid, "gpu_index": gpu.index, "name": gpu.name, "state": gpu.state}
    judged = {"reasons": _json(list(gpu.reasons)), "uptime_percent": gpu.uptime_percent}
    return about | judged | seconds


def _incident_rows(entry: Entry) -> list[dict[str, Any]]:
    return [
        _key(entry)
        | {"gpu": one.gpu, "state": one.state, "reason": one.reason, "since_us": microseconds(one.since)}
        | {"until_us": None if one.until is None else microseconds(one.until)}
        for one in entry.incidents
    ]


def _evidence_rows(entry: Entry) -> list[dict[str, Any]]:
    if entry.evidence is None:
        return []
    return [_key(entry) | {"signature": entry.evidence[0], "payload": entry.evidence[1]}]
