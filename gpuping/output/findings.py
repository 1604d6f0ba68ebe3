"""What a check of `gpuping doctor` found, and what to do about it."""

from typing import Literal

from msgspec import Struct

Level = Literal["ok", "note", "warning", "failure"]


class Finding(Struct, kw_only=True, frozen=True):
    """`advice` tells the user what to do. It is empty where nothing is to be done."""

    check: str
    level: Level
    detail: str
    advice: str = ""


def ok(check: str, detail: str) -> Finding:
    """The checked part works."""
    return Finding(check=check, level="ok", detail=detail)


def note(check: str, detail: str, advice: str = "") -> Finding:
    """Nothing is wrong, but the user may want to know."""
    return Finding(check=check, level="note", detail=detail, advice=advice)


def warning(check: str, detail: str, advice: str) -> Finding:
    """The checked part works, but not as well as it should."""
    return Finding(check=check, level="warning", detail=detail, advice=advice)


def failure(check: str, detail: str, advice: str) -> Finding:
    """The checked part does not work."""
    return Finding(check=check, level="failure", detail=detail, advice=advice)
