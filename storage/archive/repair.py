"""Takes a partition that cannot be read out of the history, so that the rest goes on without it.

Its files are kept under other names for people, its sums are made again without it, and the stream
is read again from its beginning. So the day comes back as far as the stream still has it. Outcomes
that history has already are recognised and not stored twice.
"""

from datetime import datetime
from pathlib import Path

import numpy as np
import structlog

from storage.engine import rollups
from storage.engine.database import Connection, transaction
from storage.engine.partitions import DAY_US, HOUR_US, Partitions, label, partition_files

log = structlog.get_logger("storage")


def remove(
    connection: Connection,
    known: Partitions,
    flaws: dict[int, str],
    now: datetime,
) -> None:
    """Removes the partitions of these days. `flaws` has the reason for each day.

    A crash after the renaming leaves files missing, which the next opening finds.
    """
    for day, flaw in sorted(flaws.items()):
        set_aside(known.folder, day, known.days[day].generation, flaw, now)
        del known.days[day]
        hours = np.arange(day * DAY_US, (day + 1) * DAY_US, HOUR_US)
        with transaction(connection):
            connection.execute("DELETE FROM archived WHERE day = $1", [day])
            connection.execute("DELETE FROM position")
            rollups.sum_again(connection, known, hours)


def set_aside(
    folder: Path,
    day: int,
    generation: int,
    flaw: str,
    now: datetime,
) -> None:
    """Renames the files of one generation of a day.

    So people can still save what is in them.
    """
    stamp = now.strftime("%Y%m%dT%H%M%S%fZ")
    # Listed before anything is renamed: a folder must not change while it is read.
    files = list(partition_files(folder))
    renamed = []
    for file in files:
        if file.day == day and file.generation == generation and file.path.suffix == ".parquet":
            new_name = file.path.with_name(f"{file.path.name}.damaged-{stamp}")
            renamed.append(str(file.path.rename(new_name)))
    log.error(
        "archive_partition_damaged",
        day=label(day),
        detail=flaw,
        set_aside=renamed,
        action="reading the stream again for this day",
    )
