"""What a check of `gpuping doctor` found, and what to do about it."""

from typing import Literal

from msgspec import Struct

from bus.redaction import redact

Level = Literal["ok", "note", "warning", "failure"]


class Finding(Struct, kw_only=True, frozen=True):
    """`advice` tells the user what to do. It is empty where nothing is to be done."""

    check: str
    level: Level
    detail: str
    advice: str = ""


def ok(check: str, detail: str) -> Finding:
    """The checked part works."""
    return _finding(check, "ok", detail)


def note(
    check: str,
    detail: str,
    advice: str = "",
) -> Finding:
    """Nothing is wrong, but the user may want to know."""
    return _finding(check, "note", detail, advice)


def warning(
    check: str,
    detail: str,
    advice: str,
) -> Finding:
    """The checked part works, but not as well as it should."""
    return _finding(check, "warning", detail, advice)


def failure(
    check: str,
    detail: str,
    advice: str,
) -> Finding:
    """The checked part does not work."""
    return _finding(check, "failure", detail, advice)


def _finding(
    check: str,
    level: Level,
    detail: str,
    advice: str = "",
) -> Finding:
    """A finding without the secrets that an address or an error may hold."""
    shown_detail = redact(detail)
    return Finding(
        check=check,
        level=level,
        detail=shown_detail,
        advice=redact(advice),
    )
