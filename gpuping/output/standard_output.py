"""Standard output whose reader may leave before the end, as `| head` does."""

import contextlib
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def ignore_closed_pipe() -> Iterator[None]:
    """Ends the block without an error when the reader of standard output has left."""
    try:
        yield
    except BrokenPipeError:
        discard_standard_output()


def discard_standard_output() -> None:
    """Sends to /dev/null what is still buffered, which is written at exit, and all that follows."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
