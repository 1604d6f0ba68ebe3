"""Optional packages. A GPU host installs neither DuckDB nor a web server.

Commands therefore import a service only when they need it, inside `needed`.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from bus.errors import GpupingError


class MissingExtraError(GpupingError):
    """A package that this command needs is not installed."""


@contextmanager
def needed(extra: str) -> Iterator[None]:
    """Wraps imports. Raises MissingExtraError, which names the extra, for a missing package."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"this needs the package {error.name!r}, which is not installed: "
            f"pip install '.[{extra}]' in a clone, or the wheel with [{extra}] after its name"
        ) from None
