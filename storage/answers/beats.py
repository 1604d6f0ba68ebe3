"""The newest outcomes of the agents that a page shows, in one answer.

Hosts that do well have many outcomes a day, those that do badly one; so the last day is read first,
and more only for the agents that it has too few of.
"""

from datetime import datetime

from msgspec.structs import replace

from bus.contract.beats import BEATS_HOURS, BeatsReply, BeatsRequest
from bus.contract.questions import Ping
from storage.answers.pings import HistoryRow, to_pings
from storage.engine.database import listed, rows_as, sql
from storage.engine.partitions import DAY_US, HOUR_US
from storage.engine.rows import microseconds
from storage.store.store import Reader


def beats(reader: Reader, request: BeatsRequest, now: datetime) -> BeatsReply:
    """Returns the outcomes by agent, newest first. GPUs that were simply up are left out."""
    now_us = microseconds(now)
    numbers: dict[int, str] = {}
    for agent_id in request.agent_ids:
        number = reader.names.agents.find(agent_id)
        if number is not None:
            numbers[number] = agent_id
    found = _newest(reader, list(numbers), now_us - DAY_US, request.count)
    short = []
    for number in numbers:
        if _is_short(found.get(number, []), request.count):
            short.append(number)
    if short:
        found |= _newest(reader, short, now_us - BEATS_HOURS * HOUR_US, request.count)
    rows = []
    for number in numbers:
        rows += found.get(number, [])
    pings: dict[str, list[Ping]] = {agent_id: [] for agent_id in numbers.values()}
    for ping in to_pings(reader, rows):
        pings[ping.agent_id].append(_without_healthy_gpus(ping))
    return BeatsReply(beats={agent_id: tuple(newest) for agent_id, newest in pings.items()})


def _newest(
    reader: Reader,
    agents: list[int],
    since_us: int,
    count: int,
) -> dict[int, list[HistoryRow]]:
    if not agents:
        return {}
    text = reader.partitions.fill(sql("beats"), since_us)
    asked = {"agents": listed(agents), "since_us": since_us, "count": count}
    found: dict[int, list[HistoryRow]] = {}
    for row in rows_as(HistoryRow, reader.cursor, text, asked):
        found.setdefault(row.agent, []).append(row)
    return found


def _is_short(rows: list[HistoryRow], count: int) -> bool:
    """Returns whether there may be older outcomes that belong to the answer."""
    return len(rows) < count and (not rows or rows[-1].ping_seq > 1)


def _without_healthy_gpus(ping: Ping) -> Ping:
    troubled = [gpu for gpu in ping.gpus if gpu.state != "up" or gpu.reasons]
    return replace(ping, gpus=tuple(troubled))
