"""The files `fleet.json` and `issued.jsonl`, as this version and earlier ones can read them.

A fleet may go back to an earlier version, which refuses a role that it does not know. Roles that
came later are therefore written to fields and a file of their own, which earlier versions ignore.
For the same reason roles that are unknown here are left out: a later version makes them again.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from bus.identity.roles import ROLES, RoleName

FLEET = "fleet.json"
ISSUED = "issued.jsonl"
ISSUED_LATER = "issued-later.jsonl"
LATER_ROLES: frozenset[RoleName] = frozenset({"bridge"})
# The tables of fleet.json in which the key of an entry is a role, and those in which the value is.
_BY_ROLE = ("signing_keys", "role_accounts")
_TO_ROLE = ("retiring", "in_fleet")
_TABLES_WITH_ROLES = (*_BY_ROLE, *_TO_ROLE)


class Fleet(Struct, frozen=True, kw_only=True):
    """The public half of an authority: `fleet.json`.

    signing_keys: by role. retiring: earlier signing keys and their roles, which are believed until
    the rotation is finished. revoked: public keys of users, each with the second since 1970 until
    which tokens for it are void. retiring_system, revoked_system: the same of users of the system
    account, which follow the rotation of the scheduler. requires_signed: reports of hosts without a
    known key do not count, unless GPUPING_REQUIRE_SIGNED says otherwise; false for fleets of before
    identities.
    unsigned_until: second since 1970 from which they do not count there either; None: no end.
    changed_at: seconds since 1970, at least one second later at every change: servers that were
    away take the account that was issued last, and compare whole seconds.
    """

    operator: str
    account: str
    system_account: str
    look_account: str
    look_signing_key: str
    look_user: str
    signing_keys: dict[RoleName, str]
    retiring: dict[str, RoleName] = {}
    role_accounts: dict[RoleName, str] = {}
    in_fleet: dict[str, RoleName] = {}
    requires_signed: bool = True
    unsigned_until: int | None = None
    revoked: dict[str, int] = {}
    retiring_system: tuple[str, ...] = ()
    revoked_system: dict[str, int] = {}
    changed_at: int = 0


class Issued(Struct, frozen=True, kw_only=True):
    """One line of `issued.jsonl`: a user that was given credentials, or had them renewed.

    Times: seconds since 1970. signed_by: the signing key, empty in lines of earlier versions.
    """

    role: RoleName
    name: str
    public_key: str
    issued_at: int
    expires_at: int
    signed_by: str = ""


def decode(data: bytes) -> Fleet:
    """Raises msgspec.DecodeError."""
    tables: dict[str, Any] = msgspec.json.decode(data, type=dict[str, Any])
    for name in _TABLES_WITH_ROLES:
        table = tables.get(name, {}) | tables.get(f"later_{name}", {})
        tables[name] = {
            key: value for key, value in table.items() if _role(name, key, value) in ROLES
        }
    return msgspec.convert(tables, Fleet)


def encode(fleet: Fleet) -> bytes:
    """Readable, and with what earlier versions do not know set apart."""
    tables: dict[str, Any] = msgspec.to_builtins(fleet)
    for name in _TABLES_WITH_ROLES:
        earlier = {}
        later = {}
        for key, value in tables[name].items():
            if _role(name, key, value) in LATER_ROLES:
                later[key] = value
            else:
                earlier[key] = value
        tables[name] = earlier
        tables[f"later_{name}"] = later
    return msgspec.json.format(msgspec.json.encode(tables)) + b"\n"


def _role(table: str, key: str, value: str) -> str:
    """Returns the role of an entry in a table."""
    if table in _BY_ROLE:
        return key
    return value


def issued_in(folder: Path) -> Iterator[Issued]:
    """Every user that was given credentials from a folder, of roles that are known here."""
    for name in (ISSUED, ISSUED_LATER):
        path = folder / name
        if not path.exists():
            continue
        for line in path.read_bytes().splitlines():
            fields = msgspec.json.decode(line, type=dict[str, Any])
            if fields.get("role") in ROLES:
                yield msgspec.convert(fields, Issued)
