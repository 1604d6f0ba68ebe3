"""Standard input, output and error of a program: open, and no reason for it to end.

A supervisor may start a program with a standard stream closed. The next socket or file would then
take its number, and libuv ends a process that closes such a socket (SIGABRT). A disk may be full
under a log, and whoever reads a pipe may leave: no ping may be lost for that.
"""

import contextlib
import errno
import io
import os
import select
import sys
from typing import TYPE_CHECKING, TextIO

from bus.errors import GpupingError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_INPUT, _OUTPUT, _ERROR = range(3)


def prepare() -> None:
    """Is called first of all by a command that prints an answer and ends.

    Standard error drops what cannot be written. Standard output raises GpupingError once, and
    BrokenPipeError where its reader has left.
    """
    _open_closed_streams()
    sys.stderr = _replaced(sys.stderr, sys.__stderr__, _Dropping, _ERROR)
    sys.stdout = _replaced(sys.stdout, sys.__stdout__, _Strict, _OUTPUT)


def prepare_service() -> None:
    """Is called by a program that goes on: both streams drop what cannot be written."""
    _open_closed_streams()
    sys.stderr = _replaced(sys.stderr, sys.__stderr__, _Dropping, _ERROR)
    sys.stdout = _replaced(sys.stdout, sys.__stdout__, _Dropping, _OUTPUT)


class _Dropping(io.FileIO):
    """A file whose writes never fail. What the system does not take is gone."""

    def write(self, data: "ReadableBuffer") -> int:
        """Returns the number of bytes given, whether they were written or not."""
        with contextlib.suppress(OSError):
            super().write(data)
        return memoryview(data).nbytes


class _Strict(io.FileIO):
    """A file whose first failed write is one error that says why. After that it drops."""

    _failed = False

    def write(self, data: "ReadableBuffer") -> int:
        """Raises GpupingError where it cannot be written, BrokenPipeError without a reader."""
        if self._failed:  # the interpreter writes what is buffered once more when it ends
            return memoryview(data).nbytes
        try:
            written = super().write(data)
            while written is None:  # somebody made the terminal non-blocking, and it is full
                select.select([], [self], [])
                written = super().write(data)
        except BrokenPipeError:
            self._failed = True
            raise
        except OSError as error:
            self._failed = True
            raise GpupingError(f"standard output cannot be written: {error.strerror}") from None
        return written


def _open_closed_streams() -> None:
    """Opens /dev/null for each of the three that is closed; open() takes the lowest number."""
    for number in (_INPUT, _OUTPUT, _ERROR):
        try:
            os.fstat(number)
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
            os.open(os.devnull, os.O_RDWR)


def _replaced(
    stream: TextIO | None, of_start: TextIO | None, kind: type[io.FileIO], number: int
) -> TextIO:
    """Returns a stream of this kind, or `stream` itself where a test has put it in place."""
    is_ours = isinstance(stream, io.TextIOWrapper) and isinstance(
        getattr(stream.buffer, "raw", None), _Dropping | _Strict
    )
    if stream is not None and stream is not of_start and not is_ours:
        return stream
    if stream is not None:
        stream.flush()
    encoding = getattr(stream, "encoding", None) or "utf-8"
    errors = getattr(stream, "errors", None) or "backslashreplace"
    is_terminal = os.isatty(number)
    return io.TextIOWrapper(
        io.BufferedWriter(kind(number, "w", closefd=False)),
        encoding=encoding,
        errors=errors,
        line_buffering=is_terminal or number == _ERROR,
        write_through=getattr(stream, "write_through", False),
    )
