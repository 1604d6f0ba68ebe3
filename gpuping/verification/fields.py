"""Reads the fields of a JSON object or of a row, with type and bounds, and names the place.

A file that is verified may come from somebody who wants it to be believed. What is not of the right
type is refused here, so that everything behind it is arithmetic with numbers that can be meant.
"""

import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any, Never

from gpuping.verification.records import InputError, Times

MOST_US = 253_402_300_799_999_999  # the end of the year 9999, the last that a time can be shown of
MOST_MS = MOST_US // 1000
MOST_NUMBER = 2**63 - 1
SHOWN = 60  # characters of a value that a message quotes


def parse(content: bytes) -> Any:
    """Returns a JSON document. Raises ValueError, also for NaN and Infinity, which JSON has not."""
    return json.loads(content, parse_constant=_refuse_constant)


class Fields:
    """An object whose fields are read one by one. Each method raises InputError."""

    def __init__(self, value: object, place: str) -> None:
        """`place`: where the object is, for messages, such as `outcomes[3]`."""
        if not isinstance(value, dict):
            raise InputError(f"{place}: expected an object, it is {_shown(value)}")
        self._values: dict[str, Any] = value
        self.place = place

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def value(self, name: str) -> Any:
        """Any value; the field must be there."""
        if name not in self._values:
            raise InputError(f"{self.place}: it has no {name}")
        return self._values[name]

    def is_null(self, name: str) -> bool:
        """Whether the field is null or not there."""
        return self._values.get(name) is None

    def text(self, name: str) -> str:
        """A text."""
        value = self.value(name)
        if not _is_text(value):
            self._refuse(name, "a text", value)
        return str(value)

    def word(self, name: str, words: tuple[str, ...]) -> str:
        """One of these words."""
        value = self.text(name)
        if value not in words:
            self._refuse(name, " or ".join(words), value)
        return value

    def optional_text(self, name: str) -> str | None:
        """A text, or None where it is null or not there."""
        if self.is_null(name):
            return None
        return self.text(name)

    def whole(self, name: str, most: int = MOST_NUMBER) -> int:
        """A whole number from 0 to `most`."""
        value = self.value(name)
        if not _is_whole(value, 0, most):
            self._refuse(name, f"a whole number from 0 to {most}", value)
        return int(value)

    def signed(self, name: str) -> int:
        """A whole number that may be negative."""
        value = self.value(name)
        if not _is_whole(value, -MOST_NUMBER, MOST_NUMBER):
            self._refuse(name, "a whole number", value)
        return int(value)

    def number(self, name: str) -> float:
        """A number that is not negative, and no more than milliseconds can be."""
        value = self.value(name)
        if not is_number(value):
            self._refuse(name, f"a number from 0 to {MOST_MS}", value)
        return float(value)

    def optional_number(self, name: str) -> float | None:
        """A number, or None where it is null or not there."""
        if self.is_null(name):
            return None
        return self.number(name)

    def flag(self, name: str) -> bool:
        """True or false."""
        value = self.value(name)
        if not isinstance(value, bool):
            self._refuse(name, "true or false", value)
        return value

    def microseconds(self, name: str) -> int:
        """A time (RFC 3339), in microseconds since 1970."""
        value = self.text(name)
        try:
            at = datetime.fromisoformat(value)
            since_1970 = at - datetime(1970, 1, 1, tzinfo=UTC)
        except (ValueError, TypeError, OverflowError):  # TypeError: without an offset
            self._refuse(name, "a time such as 2026-10-31T00:00:00Z", value)
        return since_1970 // timedelta(microseconds=1)

    def values(self, name: str) -> list[Any]:
        """A list of anything."""
        value = self.value(name)
        if not isinstance(value, list):
            self._refuse(name, "a list", value)
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts."""
        values = self.values(name)
        for value in values:
            if not _is_text(value):
                self._refuse(name, "a list of texts", value)
        return tuple(values)

    def fields(self, name: str) -> "Fields":
        """An object."""
        return Fields(self.value(name), f"{self.place}.{name}")

    def objects(self, name: str) -> "list[Fields]":
        """A list of objects."""
        found = []
        for place, value in enumerate(self.values(name)):
            found.append(Fields(value, f"{self.place}.{name}[{place}]"))
        return found

    def names(self) -> tuple[str, ...]:
        """The names of all fields."""
        return tuple(self._values)

    def times(self, name: str) -> Times:
        """Milliseconds by state, as a list of five."""
        values = self.values(name)
        expected = f"five whole numbers from 0 to {MOST_MS}"
        if len(values) != len(Times._fields):
            self._refuse(name, expected, values)
        for value in values:
            if not _is_whole(value, 0, MOST_MS):
                self._refuse(name, expected, values)
        return Times(*values)

    def seconds(self, name: str) -> Times:
        """Milliseconds by state, from an object of seconds."""
        fields = self.fields(name)
        values = []
        for state in Times._fields:
            values.append(round(fields.number(state) * 1000))
        return Times(*values)

    def _refuse(self, name: str, expected: str, value: object) -> Never:
        raise InputError(f"{self.place}.{name}: expected {expected}, it is {_shown(value)}")


def is_number(value: object) -> bool:
    """Whether it is a number that can be meant: finite, not negative, not beyond all times."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) and 0 <= value <= MOST_MS


def _is_text(value: object) -> bool:
    """Whether it is a text that has bytes: JSON can name half of a character."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_whole(value: object, least: int, most: int) -> bool:
    if isinstance(value, bool) or not isinstance(value, int):
        return False
    return least <= value <= most


def _refuse_constant(name: str) -> Never:
    raise ValueError(name)


def _shown(value: object) -> str:
    text = ascii(value)
    if len(text) <= SHOWN:
        return text
    return f"{text[:SHOWN]}..."
