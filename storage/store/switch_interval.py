"""How threads take turns at the interpreter while history is taken in.

Decoding a batch holds the interpreter's lock for a tenth of a second. Whoever else wants it (a question's thread, the
writer after each step in DuckDB, the event loop) waits for Python's switch interval first, 5 ms by default, some thirty
times a batch. With a tenth of it a question asked meanwhile takes 31 ms and not 121 (p95, docs/benchmarks.md).
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

SECONDS = 0.0005


@contextmanager
def short_switch_interval() -> Iterator[None]:
    """For the length of a block, and for the whole process: there is one interpreter."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
