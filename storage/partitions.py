"""Where the rows of a stretch of time are: in the file, in Parquet partitions by day, or in both.

Questions are written against `{pings}`, `{gpus}`, `{incidents}` and `{evidence}`; this puts in the table, or the
table and just those partitions that the stretch touches. Nobody else need know what is archived.
"""

from datetime import UTC, datetime
from pathlib import Path

DAY_US = 86_400_000_000
HOUR_US = 3_600_000_000
EVER = (0, 2**62)

# a partition names agents and GPUs in full, so that any engine reads it and a rebuild can number them anew
_ARCHIVED = {
    "pings": """(
        SELECT * FROM pings
        UNION ALL BY NAME
        SELECT a.agent, s.gpu_set, x.* EXCLUDE (agent_id, gpus)
        FROM read_parquet({files}) AS x
        JOIN agents AS a USING (agent_id)
        LEFT JOIN gpu_sets AS s ON s.gpus = x.gpus)""",
}
_BESIDE = """(
        SELECT * FROM {table}
        UNION ALL BY NAME
        SELECT a.agent, x.* EXCLUDE (agent_id)
        FROM read_parquet({files}) AS x
        JOIN agents AS a USING (agent_id))"""
TABLES = ("pings", "gpus", "incidents", "evidence")


class Partitions:
    """The days that are archived, and how to read them together with the tables."""

    def __init__(self, folder: Path, days: dict[int, int]) -> None:
        self.folder = folder
        self.days = days  # the generation of files that counts, by day

    def file(self, day: int, table: str, generation: int | None = None) -> Path:
        """A partition's file; there is none where the day had no such rows."""
        generation = self.days[day] if generation is None else generation
        return self.folder / f"day={label(day)}" / f"{table}-{generation}.parquet"

    def fill(self, text: str, since_us: int = EVER[0], until_us: int = EVER[1]) -> str:
        """A question's text with its tables put in, for outcomes pinged in `[since, until]`."""
        for table in TABLES:
            if (mark := "{" + table + "}") in text:
                text = text.replace(mark, self._source(table, since_us, until_us))
        return text

    def _source(self, table: str, since_us: int, until_us: int) -> str:
        touched = sorted(day for day in self.days if since_us // DAY_US <= day <= until_us // DAY_US)
        files = [str(file) for day in touched if (file := self.file(day, table)).exists()]
        if not files:
            return table
        listed = "[" + ", ".join("'" + name.replace("'", "''") + "'" for name in files) + "]"
        return _ARCHIVED.get(table, _BESIDE).replace("{files}", listed).replace("{table}", table)


def label(day: int) -> str:
    """A day number as a date."""
    return datetime.fromtimestamp(day * 86_400, UTC).strftime("%Y-%m-%d")
