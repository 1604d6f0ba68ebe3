"""Lets threads switch more often while history is taken in.

Decoding a batch holds the interpreter's lock for a tenth of a second. Any other thread that wants
it (a question's thread, the writer after each step in DuckDB, the event loop) waits for Python's
switch interval first, 5 ms by default, some thirty times a batch. With a tenth of that interval a
question asked meanwhile takes 31 ms in place of 121 (95th percentile, docs/decisions/storage.md).
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

SECONDS = 0.0005


@contextmanager
def short_switch_interval() -> Iterator[None]:
    """Sets the interval for the duration of a block.

    It holds for the whole process, which has one interpreter.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
