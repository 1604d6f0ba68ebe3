"""Keeps whoever sends bad messages from filling the log: repeats are counted instead of written.

Each kind of line has a budget for each host, subject or connection that it is about: AT_ONCE lines,
then one a minute. That one says in `left_out` how many there were between.
"""

from collections import Counter
from collections.abc import Callable

import structlog

from bus.clock import boottime
from bus.rate_limit import RateLimit

AT_ONCE = 20.0
PER_SECOND = 1 / 60
MOST_COUNTED = 10_000
LONGEST_TEXT = 2_000  # characters of one field; errors may quote what was sent
_ABOUT = ("agent_id", "subject", "endpoint", "connection", "key", "gpu", "path", "consumer")
_WHOLE = frozenset({"event", "exception"})


class RepeatLimit:
    """A processor of structlog, which is called with each line in turn. Debugging is not limited.

    `clock` is in seconds and never goes back.
    """

    def __init__(self, clock: Callable[[], float] = boottime) -> None:
        self._clock = clock
        self._limit = RateLimit(PER_SECOND, AT_ONCE)
        self._left_out: Counter[str] = Counter()

    def __call__(
        self,
        _logger: structlog.typing.WrappedLogger,
        level: str,
        line: structlog.typing.EventDict,
    ) -> structlog.typing.EventDict:
        """Returns the line, or drops it."""
        if level == "debug":
            return line
        key = " ".join([str(line.get("event")), *(str(line.get(name, "")) for name in _ABOUT)])
        if self._limit.take(key, self._clock()) > 0:
            if len(self._left_out) >= MOST_COUNTED and key not in self._left_out:
                self._left_out.clear()
            self._left_out[key] += 1
            raise structlog.DropEvent
        left_out = self._left_out.pop(key, 0)
        if left_out:
            line["left_out"] = left_out
        return line


def shorten(
    _logger: structlog.typing.WrappedLogger,
    _level: str,
    line: structlog.typing.EventDict,
) -> structlog.typing.EventDict:
    """Cuts long texts, and writes control characters, which a terminal would obey, as escapes."""
    for name, value in line.items():
        if not isinstance(value, str) or name in _WHOLE:
            continue
        text = value
        if len(text) > LONGEST_TEXT:
            text = f"{text[:LONGEST_TEXT]}..."
        if not text.isprintable():
            text = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)
        line[name] = text
    return line
