"""Content negotiation: which of our formats an Accept header prefers."""

from typing import Any, Literal

from litestar import Request

Format = Literal["json", "csv", "parquet"]
_FORMATS: dict[str, Format] = {
    "text/csv": "csv",
    "application/vnd.apache.parquet": "parquet",
    "application/json": "json",
}


def accepted(request: Request[Any, Any, Any]) -> Format:
    """The format that a request's Accept header prefers."""
    return preferred(request.headers.get("accept", ""))


def preferred(accept: str) -> Format:
    """The named format of the highest quality, the first among equals; json where none is named.

    A wildcard such as `*/*` names none.
    """
    best: Format = "json"
    best_quality = 0.0
    for part in accept.lower().split(","):
        media_type, *parameters = part.split(";")
        candidate = _FORMATS.get(media_type.strip())
        if candidate is None:
            continue
        quality = _quality(parameters)
        if quality > best_quality:
            best = candidate
            best_quality = quality
    return best


def _quality(parameters: list[str]) -> float:
    """The number of `q=`, 1 without one, and 0 where it is not a number."""
    for parameter in parameters:
        name, separator, value = parameter.strip().partition("=")
        if name != "q" or not separator:
            continue
        try:
            return float(value)
        except ValueError:
            return 0.0
    return 1.0
