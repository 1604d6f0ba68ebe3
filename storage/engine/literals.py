"""Paths as SQL literals, for statements in which DuckDB takes no parameter.

Such are COPY, ATTACH, SET and lists of files.
"""

from collections.abc import Iterable
from pathlib import Path


def quoted(path: Path) -> str:
    """`'/data/it''s here'`."""
    text = str(path).replace("'", "''")
    return f"'{text}'"


def quoted_list(paths: Iterable[Path]) -> str:
    """`['/a', '/b']`."""
    listed = ", ".join(quoted(path) for path in paths)
    return f"[{listed}]"
