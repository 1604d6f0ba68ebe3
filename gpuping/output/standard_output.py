"""Standard output whose reader may leave before the end, as `| head` does."""

import contextlib
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def ignore_closed_pipe() -> Iterator[None]:
    """Ends the block without an error when the reader of standard output has left.

    What is still buffered then goes to /dev/null, because the interpreter flushes it once more at
    exit.
    """
    try:
        yield
    except BrokenPipeError:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
