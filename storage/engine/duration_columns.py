"""The five columns of durations that rows have, as `Durations`. Pure."""

from typing import Protocol

from bus.contract.durations import Durations


class DurationColumns(Protocol):
    """A row in which the five columns always have values."""

    @property
    def up_ms(self) -> int: ...
    @property
    def degraded_ms(self) -> int: ...
    @property
    def down_ms(self) -> int: ...
    @property
    def unknown_ms(self) -> int: ...
    @property
    def excused_ms(self) -> int: ...


class NullableDurationColumns(Protocol):
    """A row in which the five columns are null together: nothing was reported. `up_ms` tells."""

    @property
    def up_ms(self) -> int | None: ...
    @property
    def degraded_ms(self) -> int: ...
    @property
    def down_ms(self) -> int: ...
    @property
    def unknown_ms(self) -> int: ...
    @property
    def excused_ms(self) -> int: ...


def durations_of(row: DurationColumns) -> Durations:
    """Returns the durations of a row."""
    return Durations(
        up=row.up_ms,
        degraded=row.degraded_ms,
        down=row.down_ms,
        unknown=row.unknown_ms,
        excused=row.excused_ms,
    )


def reported_durations(row: NullableDurationColumns) -> Durations | None:
    """Returns the durations of a row; None where nothing was reported."""
    if row.up_ms is None:
        return None
    return Durations(
        up=row.up_ms,
        degraded=row.degraded_ms,
        down=row.down_ms,
        unknown=row.unknown_ms,
        excused=row.excused_ms,
    )
