"""Where a report's window lies in time. Pure.

Lengths are the ledger's and exact; an agent's wall clock is a label, which may be wrong, or be set right in between.
So a window ends where the agent says while that agrees with our own clock, which saw the ping leave and the answer
come; else it ends with the ping. Windows of a host whose clock is years off then lie where they belong.
"""

from msgspec import Struct

AGREES_US = 5_000_000  # a host that keeps time at all is nearer


class Place(Struct, frozen=True):
    """`[since, until)` in microseconds by our clock. What the agent labels in it moves by `shift_us`.

    `stepped`: its clock was set while the window ran, so its labels cannot say where in the window something was.
    """

    since_us: int
    until_us: int
    shift_us: int = 0
    stepped: bool = False


def placed(pinged_us: int, response_us: int | None, label: tuple[int, int], spent_us: int) -> Place:
    """A window that the agent labels `[since, until)`, and in which it accounts for `spent_us`.

    In whole milliseconds, the ledger's grain, so that windows tile: history keeps a label as so many of them after the
    ping, rounded down, and the label itself is a whole one.
    """
    rest_us = -label[1] % 1000
    since_us, until_us = label[0] + rest_us, label[1] + rest_us
    agrees = pinged_us - AGREES_US <= until_us <= pinged_us + (response_us or 0) + AGREES_US
    shift_us = 0 if agrees else pinged_us - pinged_us % 1000 - until_us
    if abs(until_us - since_us - spent_us) > AGREES_US:
        return Place(until_us + shift_us - spent_us, until_us + shift_us, shift_us, stepped=True)
    return Place(since_us + shift_us, until_us + shift_us, shift_us)
