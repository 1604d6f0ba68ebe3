"""What history has of one agent around a month, as windows that lie where they belong."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any, NamedTuple

from msgspec import Struct

from bus.contract.messages import Incident
from storage.engine.bounds import LAST_US
from storage.engine.database import listed, rows_of, sql
from storage.engine.rows import from_microseconds
from storage.statements.alignment import Place, placed
from storage.statements.windows import Milliseconds, Window
from storage.store.store import Reader


class Told(NamedTuple):
    """An outcome. `label`, its window by the agent's clock, and the account are None where nothing was reported."""

    ping_seq: int
    pinged_us: int
    outcome: str
    verdict: str
    uptime_percent: float | None
    label: tuple[int, int] | None
    response_us: int | None
    gpu_set: int | None
    account: Milliseconds | None

    @classmethod
    def of(cls, row: tuple[Any, ...]) -> "Told":
        """A row of `statement_windows.sql`: the five stand together, or none of them."""
        (
            number,
            pinged_us,
            outcome,
            verdict,
            percent,
            since_us,
            until_us,
            response_us,
            gpu_set,
            *five,
        ) = row
        label = None if until_us is None or since_us is None else (since_us, until_us)
        account = None if five[0] is None else Milliseconds(*five)
        return cls(
            number, pinged_us, outcome, verdict, percent, label, response_us, gpu_set, account
        )


class Outcomes(Struct, frozen=True):
    """In the order of time. `names` are the GPUs' places and models."""

    told: list[Told]
    windows: dict[int, Window]  # by pinged_us
    names: dict[str, tuple[int | None, str]]


def outcomes(reader: Reader, agent: int, since_us: int, until_us: int) -> Outcomes:
    """Those whose pings left within `[since, until)`."""
    asked = {"agent": agent, "since_us": since_us, "until_us": until_us}

    def rows(name: str, **parameters: Any) -> list[tuple[Any, ...]]:
        return rows_of(
            reader.cursor,
            reader.partitions.fill(sql(name), since_us, until_us),
            parameters or asked,
        )

    told = [Told.of(row) for row in rows("statement_windows")]
    sets = {number: reader.names.gpus(number) for number in sorted(_numbers(told))}
    own: dict[int, dict[str, Milliseconds]] = {}
    for gpu in rows("gpus_of_pings", agents=listed([agent]), since_us=since_us, until_us=until_us):
        own.setdefault(gpu[2], {})[gpu[3]] = Milliseconds(*gpu[9:14])
    incidents: dict[int, list[tuple[Any, ...]]] = {}
    for row in rows("statement_incidents"):
        incidents.setdefault(row[1], []).append(row)
    windows = {}
    for one in told:
        if window := _window(one, sets, own.get(one.pinged_us), incidents.get(one.pinged_us, [])):
            windows[one.pinged_us] = window
    names = {uuid: (index, name) for gpus in sets.values() for uuid, index, name in gpus}
    return Outcomes(told, windows, names)


def first_us(reader: Reader, agent: int) -> int | None:
    """When the agent's history begins."""
    asked = {"agent": agent, "ever": LAST_US}
    found: int | None = rows_of(reader.cursor, reader.partitions.fill(sql("first_outcome")), asked)[
        0
    ][0]
    return found


def _numbers(told: Iterable[Told]) -> set[int]:
    return {one.gpu_set for one in told if one.gpu_set is not None}


def _window(
    told: Told,
    sets: dict[int, Any],
    own: dict[str, Milliseconds] | None,
    incidents: list[tuple[Any, ...]],
) -> Window | None:
    """None where nothing was reported. GPUs have the host's account where they have none of their own."""
    if (host := told.account) is None or told.label is None:
        return None
    place = placed(told.pinged_us, told.response_us, told.label, host.total * 1000)
    shared = {} if told.gpu_set is None else {uuid: host for uuid, _, _ in sets[told.gpu_set]}
    return Window(
        told.ping_seq,
        place.since_us,
        place.until_us,
        host,
        shared if own is None else own,
        tuple(_incident(row, place) for row in incidents),
        place.stepped,
    )


def _incident(row: tuple[Any, ...], place: Place) -> Incident:
    """Its moments, which are labels too, moved with the window's."""
    _, _, uuid, state, reason, begun, ended = row
    shift = timedelta(microseconds=place.shift_us)
    until = None if ended is None else from_microseconds(ended) + shift
    return Incident(
        gpu=uuid, state=state, reason=reason, since=from_microseconds(begun) + shift, until=until
    )
