"""The order of an agent's outcomes, newest first, and the cursor that names a place in it: one for pages and for files.

By time, and by number where two share a microsecond. Numbers alone order nothing, for they begin again where the bucket
was lost; and a place in time stays where it is while newer outcomes come in.
"""

from datetime import datetime

from storage.engine.bounds import LAST_US
from storage.engine.rows import microseconds

_LARGEST = 2**63 - 1  # BIGINT


def older_than(cursor: str | None) -> dict[str, int]:
    """What `history_page.sql` and `table_history.sql` need to begin after a cursor; None: at the newest outcome."""
    if cursor is None:
        return {"before_us": LAST_US, "before_seq": _LARGEST}
    pinged_us, number = map(int, cursor.split("-"))
    return {"before_us": pinged_us, "before_seq": min(number, _LARGEST)}


def cursor_at(pinged_at: datetime, ping_seq: int) -> str:
    """The cursor behind an outcome."""
    return f"{microseconds(pinged_at)}-{ping_seq}"
