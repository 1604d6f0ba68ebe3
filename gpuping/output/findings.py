"""What a check of `gpuping doctor` found, and what to do about it."""

from typing import Literal

from msgspec import Struct

Level = Literal["ok", "note", "warning", "failure"]


class Finding(Struct, kw_only=True, frozen=True):
    """`advice` is an instruction; empty where nothing is to be done."""

    check: str
    level: Level
    detail: str
    advice: str = ""


def ok(check: str, detail: str) -> Finding:
    """All is well."""
    return Finding(check=check, level="ok", detail=detail)


def note(check: str, detail: str, advice: str = "") -> Finding:
    """Worth knowing; nothing is wrong."""
    return Finding(check=check, level="note", detail=detail, advice=advice)


def warning(check: str, detail: str, advice: str) -> Finding:
    """Works, but not as it should."""
    return Finding(check=check, level="warning", detail=detail, advice=advice)


def failure(check: str, detail: str, advice: str) -> Finding:
    """Does not work."""
    return Finding(check=check, level="failure", detail=detail, advice=advice)
