"""A partition that cannot be read is taken out of the history by itself, and the rest goes on without it.

Its files are kept under another name for people, its sums are dropped, and the stream is read again from its
beginning: so the day comes back as far as the stream still has it, and what is held already is known by the outcome.
"""

from datetime import datetime
from pathlib import Path

import numpy as np
import structlog

from storage.engine import rollups
from storage.engine.database import Connection, transaction
from storage.engine.partitions import DAY_US, HOUR_US, Partitions, label, parts

log = structlog.get_logger("storage")


def let_go(connection: Connection, known: Partitions, flaws: dict[int, str], now: datetime) -> None:
    """Takes these days' partitions out. A crash in between leaves files missing, which the next opening sees."""
    for day, flaw in sorted(flaws.items()):
        set_aside(known.folder, day, known.days[day].generation, flaw, now)
        del known.days[day]
        with transaction(connection):
            connection.execute("DELETE FROM archived WHERE day = $1", [day])
            connection.execute("DELETE FROM position")
            rollups.make_again(
                connection, known, np.arange(day * DAY_US, (day + 1) * DAY_US, HOUR_US)
            )


def set_aside(folder: Path, day: int, generation: int, flaw: str, now: datetime) -> None:
    """Renames the files of one generation, so that nobody loses what may be saved by hand."""
    stamp = now.strftime("%Y%m%dT%H%M%S%fZ")
    mine = [path for one, _, number, path in parts(folder) if (one, number) == (day, generation)]
    there = [path for path in mine if path.suffix == ".parquet"]
    moved = [path.rename(path.with_name(f"{path.name}.damaged-{stamp}")) for path in there]
    log.error(
        "archive_partition_damaged",
        day=label(day),
        detail=flaw,
        set_aside=[str(path) for path in moved],
        action="reading the stream again for this day",
    )
