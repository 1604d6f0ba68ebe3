"""Single values as text: percentages, durations, times, and texts that a host chose."""

from datetime import datetime, timedelta

from rich.text import Text

from bus.contract.messages import SummedSeconds

NO_VALUE = Text("-", style="bright_black")
# Uptime from which on a percentage is green, and from which on it is yellow.
GOOD_PERCENT = 99.0
FAIR_PERCENT = 90.0
STATE_NAMES = ("up", "degraded", "down", "unknown", "excused")
_DURATION_UNITS = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))


def percent(value: float | None) -> Text:
    """A percentage with two decimals, never rounded up: 99.996 shows as 99.99."""
    if value is None:
        return NO_VALUE
    if value >= GOOD_PERCENT:
        colour = "green"
    elif value >= FAIR_PERCENT:
        colour = "yellow"
    else:
        colour = "red"
    hundredths = int(value * 100)
    return Text(f"{hundredths / 100:.2f} %", style=colour)


def duration(seconds: float) -> str:
    """A duration in its two largest units: 90 s is `1m 30s`. No time at all is `-`."""
    if seconds == 0:
        return "-"
    if seconds < 0.0995:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 59.95:
        text = f"{seconds:.1f}".removesuffix(".0")
        return f"{text}s"
    whole = round(seconds)
    for index, (size, unit) in enumerate(_DURATION_UNITS):
        if whole < size:
            continue
        smaller_size, smaller_unit = _DURATION_UNITS[index + 1]
        rest = whole % size // smaller_size
        if rest == 0:
            return f"{whole // size}{unit}"
        return f"{whole // size}{unit} {rest}{smaller_unit}"
    raise AssertionError("at least 60 seconds are at least one minute")


def relative_time(when: datetime | None, now: datetime) -> Text:
    """A time as its distance from now: `3m ago`, `in 12s`."""
    if when is None:
        return NO_VALUE
    distance = (when - now) / timedelta(seconds=1)
    if abs(distance) < 1:
        return Text("now")
    text = duration(round(abs(distance)))
    if distance > 0:
        return Text(f"in {text}")
    return Text(f"{text} ago")


def milliseconds(value: float | None) -> Text:
    """A response time, given in milliseconds."""
    if value is None:
        return NO_VALUE
    return Text(f"{value:.1f} ms")


def durations_by_state(seconds: SummedSeconds) -> str:
    """A period by state in words: `1h up, 5m down`. States that took no time are left out."""
    parts = []
    for name in STATE_NAMES:
        value: float = getattr(seconds, name)
        if value:
            parts.append(f"{duration(value)} {name}")
    return ", ".join(parts) or "nothing accounted"


def counted(count: int, noun: str) -> str:
    """`1 ping`, `2 pings`."""
    if count == 1:
        return f"1 {noun}"
    return f"{count} {noun}s"


def untrusted(text: str) -> Text:
    """A text that a host chose. Rich reads no markup in it, and nothing in it moves the cursor."""
    shown = ""
    for letter in text:
        if letter.isprintable():
            shown += letter
        else:
            shown += "\N{REPLACEMENT CHARACTER}"
    return Text(shown)
