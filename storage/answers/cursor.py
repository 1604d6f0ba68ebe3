"""The order of an agent's outcomes, newest first, and the cursor that names a position in it.

Outcomes are ordered by time, and by number where two have the same microsecond. Numbers alone are
no order, because they begin again where the bucket was lost. A position in time stays valid while
newer outcomes are recorded.
"""

from datetime import datetime

from storage.engine.bounds import LAST_US
from storage.engine.rows import microseconds

_LARGEST_BIGINT = 2**63 - 1


def older_than(cursor: str | None, before: datetime | None = None) -> dict[str, int]:
    """Returns the parameters of a query for outcomes older than the cursor.

    The queries are `history_page.sql` and `table_history.sql`. Without a cursor they are those
    before a moment, or all from the newest on.
    """
    if cursor is None and before is not None:
        return {"before_us": microseconds(before), "before_seq": 0}
    if cursor is None:
        return {"before_us": LAST_US, "before_seq": _LARGEST_BIGINT}
    pinged_us, ping_seq = map(int, cursor.split("-"))
    return {"before_us": pinged_us, "before_seq": min(ping_seq, _LARGEST_BIGINT)}


def cursor_at(pinged_at: datetime, ping_seq: int) -> str:
    """Returns the cursor directly after an outcome."""
    return f"{microseconds(pinged_at)}-{ping_seq}"
