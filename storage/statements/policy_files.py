"""Reads payment policies: TOML texts, and the ready-made files in `policies/`."""

import tomllib
from pathlib import Path

import msgspec

from bus.contract.statements import Band, PayRules
from bus.errors import BadMessageError
from storage.statements.payment import Terms, threshold_terms

POLICIES = Path(__file__).parent / "policies"


def ready_made() -> list[str]:
    """Returns the names of the policies that come with the program, in order."""
    return sorted(file.stem for file in POLICIES.glob("*.toml"))


def read_rules(text: str) -> PayRules:
    """Returns the rules of a ready-made policy, by its name, or of a TOML text.

    The highest band comes first.

    Raises BadMessageError, which says what is wrong with the text.
    """
    is_name = "\n" not in text and "=" not in text
    if is_name:
        names = ready_made()
        if text not in names:
            listed = ", ".join(names)
            raise BadMessageError(
                f"no policy {text[:50]!r}: there are {listed}, or give a TOML file"
            )
        text = (POLICIES / f"{text}.toml").read_text()
    # RecursionError and OverflowError: deeply nested lists, and numbers with thousands of digits
    try:
        rules = msgspec.convert(tomllib.loads(text), PayRules)
    except (ValueError, RecursionError, OverflowError) as error:
        raise BadMessageError(f"policy: {error}") from None
    bands = sorted(rules.bands, key=_highest_first)
    return msgspec.structs.replace(rules, bands=tuple(bands))


def asked_terms(
    asked_threshold: float | None,
    policy: str | None,
    threshold: float,
) -> Terms:
    """Returns the terms that a request names.

    What it leaves out is as it is in force (`threshold`).

    Raises BadMessageError for a policy that cannot be read.
    """
    if asked_threshold is not None:
        threshold = asked_threshold
    if policy is None:
        return threshold_terms(threshold)
    return Terms(read_rules(policy), threshold)


def _highest_first(band: Band) -> float:
    return -band.at_least
