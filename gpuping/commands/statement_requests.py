"""Turns --month, --threshold and --policy into the requests for a statement and for a replay."""

from pathlib import Path
from typing import TypeVar

import msgspec

from bus import clock
from bus.contract.statements import READY_MADE, FleetReplayRequest, StatementRequest
from bus.errors import SettingsError

RequestT = TypeVar("RequestT", StatementRequest, FleetReplayRequest)


def statement_request(
    month: str | None,
    threshold: float | None,
    policy: str | None,
) -> StatementRequest:
    """The request for one agent's month; without `month` the present one.

    `policy` is the name of a ready-made policy or the path of a TOML file, whose text is then sent.
    Raises SettingsError for a month that is not one and for a file that cannot be read.
    """
    return _request(StatementRequest, month, threshold, policy)


def replay_request(
    month: str | None,
    threshold: float | None,
    policy: str | None,
) -> FleetReplayRequest:
    """The request for the fleet's month under other rules, with options as in `statement_request`.

    Raises SettingsError also when neither `threshold` nor `policy` is given.
    """
    if threshold is None and policy is None:
        raise SettingsError(
            f"--threshold, --policy: expected one of them; ready-made: {', '.join(READY_MADE)}"
        )
    return _request(FleetReplayRequest, month, threshold, policy)


def invalid_month(month: str | None) -> SettingsError:
    """The error for a month that is not one."""
    return SettingsError(f"--month={month!r}: expected a month, such as 2026-11")


def _request(
    kind: type[RequestT],
    month: str | None,
    threshold: float | None,
    policy: str | None,
) -> RequestT:
    if month is None:
        month = f"{clock.utc_now():%Y-%m}"
    if policy is not None:
        policy = _policy_text(policy)
    options = {"month": month, "threshold": threshold, "policy": policy}
    try:
        return msgspec.convert(options, kind)
    except msgspec.ValidationError as error:
        if "$.month" in str(error):
            raise invalid_month(month) from None
        raise SettingsError(f"--threshold, --policy: {error}") from None


def _policy_text(policy: str) -> str:
    """The text of the file of that name, or the name of a policy that storage has."""
    path = Path(policy).expanduser()
    try:
        if not path.is_file():
            return policy
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"--policy={policy!r}: expected a readable TOML file: {error}"
        ) from None
