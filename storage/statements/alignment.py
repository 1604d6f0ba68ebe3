"""Places a report's window on our clock. Pure.

The length of a window is measured by the agent's ledger and exact. Its ends are labels of the
agent's wall clock, which may be wrong and may be set while the window runs. A label is believed
where it agrees with our own clock, which knows when the ping left and when the answer came.
Otherwise the window ends when the ping left, so that the windows of a host whose clock is years off
still lie where they belong.
"""

from msgspec import Struct

from bus.contract.durations import Interval

AGREES_US = 5_000_000  # a host that keeps time at all is nearer than this


class AlignedWindow(Struct, frozen=True):
    """A window by our clock, in microseconds.

    `shift_us` is added to every moment that the agent labels within the window. `clock_stepped`:
    the agent's clock was set while the window ran, so that its labels do not say where in the
    window something was.
    """

    interval: Interval
    shift_us: int = 0
    clock_stepped: bool = False


def align(
    pinged_us: int,
    response_us: int | None,
    label: Interval,
    spent_us: int,
) -> AlignedWindow:
    """Returns where a window lies that the agent labels with `label`.

    `spent_us`: the time that the agent accounts for within it.

    History keeps a label as whole milliseconds from the ping, rounded down, and the label itself is
    in whole milliseconds. It is therefore rounded up to the next one here, and successive windows
    meet exactly.
    """
    rounding_us = -label.end % 1000
    begin_us = label.begin + rounding_us
    end_us = label.end + rounding_us
    answered_us = pinged_us + (response_us or 0)
    shift_us = 0
    if not pinged_us - AGREES_US <= end_us <= answered_us + AGREES_US:
        shift_us = pinged_us - pinged_us % 1000 - end_us
    clock_stepped = abs(end_us - begin_us - spent_us) > AGREES_US
    if clock_stepped:
        begin_us = end_us - spent_us
    interval = Interval(begin_us + shift_us, end_us + shift_us)
    return AlignedWindow(interval, shift_us, clock_stepped)
