"""Services are imported when a verb needs them: a GPU host installs neither DuckDB nor a web server."""

from collections.abc import Iterator
from contextlib import contextmanager

from bus.errors import GpupingError


class MissingExtraError(GpupingError):
    """A package that this verb needs is not installed."""


@contextmanager
def needed(extra: str) -> Iterator[None]:
    """Around imports: a package that is absent becomes one line that names the extra to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"this needs the package {error.name!r}, which is not installed: pip install 'gpuping[{extra}]'"
        ) from None
