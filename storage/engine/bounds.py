"""Bounds beyond every time that history keeps, in microseconds since 1970."""

from bus.contract.durations import FAR

FIRST_US = -FAR
LAST_US = FAR
