"""Reads the timestamps of many messages at once, from text to microseconds since 1970. Pure.

Each outcome has up to five timestamps. Made one by one, a `datetime` and its distance from 1970
cost a third of a microsecond each; as one array they cost a third of that (measured).
"""

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from bus.contract.messages import EARLIEST, LATEST, Timestamp
from storage.engine.rows import microseconds

# The form in which our messages write timestamps, but for those of whole seconds.
FORM = "2026-11-01T00:00:00.000000Z"
_LENGTH = len(FORM)

# For each position of a text, the lowest and the highest byte that it may have: digits may be any
# digit, other letters are as in FORM. One byte more must be zero, for numpy fills shorter texts
# with zeros.
_FORM_BYTES = np.frombuffer(FORM.encode() + b"\0", np.uint8)[:, np.newaxis]
_ZERO, _NINE = np.frombuffer(b"09", np.uint8)
_IS_DIGIT = (_ZERO <= _FORM_BYTES) & (_FORM_BYTES <= _NINE)
_LOWEST = np.where(_IS_DIGIT, _ZERO, _FORM_BYTES)
_HIGHEST = np.where(_IS_DIGIT, _NINE, _FORM_BYTES)

_EARLIEST = np.datetime64(microseconds(EARLIEST), "us")
_LATEST = np.datetime64(microseconds(LATEST), "us")
_UNREADABLE = np.datetime64("NaT", "us")


def timestamps(texts: Sequence[str]) -> NDArray[np.datetime64]:
    """Returns the texts as times in microseconds, NaT where a text is not a time from 1970 to 9998.

    Texts in FORM are read together, others one by one.
    """
    found = _read(texts)
    found[(found < _EARLIEST) | (found >= _LATEST)] = _UNREADABLE
    return found


def _read(texts: Sequence[str]) -> NDArray[np.datetime64]:
    if "\0" in "".join(texts):
        # numpy would take the zero for the end of the text.
        return _read_each(texts)
    try:
        # One byte more than FORM has, so that a longer text does not look like it.
        padded = np.array(texts, dtype=f"S{_LENGTH + 1}")
        by_text = padded.view(np.uint8).reshape(len(texts), _LENGTH + 1)
        # Transposed and copied, so that each comparison below runs over memory in order.
        by_position = by_text.T.copy()
        in_form = ((by_position >= _LOWEST) & (by_position <= _HIGHEST)).all(axis=0)
        without_zone = padded.astype(f"S{_LENGTH - 1}")
        without_zone[~in_form] = b"NaT"
        found = without_zone.astype("datetime64[us]")
    except ValueError:
        # Some text has a letter beyond ASCII, or a thirteenth month.
        return _read_each(texts)
    for index in np.flatnonzero(~in_form).tolist():
        found[index] = _read_one(texts[index])
    return found


def _read_each(texts: Sequence[str]) -> NDArray[np.datetime64]:
    return np.array([_read_one(text) for text in texts], dtype="datetime64[us]")


def _read_one(text: str) -> np.datetime64:
    """Reads a text in the way of the slow path."""
    try:
        return np.datetime64(microseconds(msgspec.convert(text, Timestamp)), "us")
    except msgspec.ValidationError:
        return _UNREADABLE
