"""Bounds beyond every time that history keeps, in microseconds since 1970."""

from bus.contract.durations import UNBOUNDED

FIRST_US = -UNBOUNDED
LAST_US = UNBOUNDED
