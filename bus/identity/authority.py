"""The authority of one fleet: its operator, its accounts and the signing key of each role.

It lives in one folder that only its owner can read:

- `operator.seed`, `account.seed`: needed to revoke, to rotate and to change permissions; they can
  be kept offline otherwise;
- `system.creds`: asks the server to take a changed account (claim updates);
- `system-scheduler.creds`: with it schedulers hear who connects, and close connections;
- `signing/ROLE.seed`: makes users of that role; a service that mints needs only its own;
- `fleet.json`: public keys, names, revocations; `issued.jsonl`: who was given credentials. Neither
  holds a secret.

The account's key never changes: the server names the folder of the streams by it.
"""

import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from bus.contract import subjects
from bus.contract.subjects import check_agent_id
from bus.errors import GpupingError
from bus.identity import accounts, claims, credentials, fleet_file
from bus.identity.fleet_file import Fleet, Issued
from bus.identity.keys import KeyKind, SigningKey, check_public_key
from bus.identity.roles import (
    LEAF_SYSTEM_PUBLISH,
    LEAF_SYSTEM_SUBSCRIBE,
    LOOK_IMPORTS,
    LOOK_PUBLISH,
    ROLES,
    RoleName,
    template,
)

USER_DAYS = 90  # agents renew theirs over the bus long before
SERVICE_DAYS = 3650
UNSIGNED_DAYS = 30  # after an upgrade from a version without identities
ACCOUNT_NAME = "GPUPING"
LOOK_ACCOUNT_NAME = "LOOK"
SYSTEM_ACCOUNT_NAME = "SYS"
GATEWAYS_TAG = "gateways:"  # before the account of gateways, in the system user's token
_LOOPBACK = ["127.0.0.0/8", "::1/128"]
_DAY = 86_400
_UNLIMITED = -1
_FOR_EVER = 4_102_444_800  # 2100-01-01, in seconds since 1970


class AuthorityError(GpupingError):
    """An authority that does not exist, exists already, or cannot do what was asked."""


class Authority:
    """An authority whose folder exists.

    Methods that sign for the account need its seed in the folder.
    """

    def __init__(self, folder: Path, fleet: Fleet) -> None:
        self.folder = folder
        self.fleet = fleet

    @classmethod
    def create(cls, folder: Path) -> "Authority":
        """Makes every key. Raises AuthorityError where there is an authority already."""
        if (folder / fleet_file.FLEET).exists():
            raise AuthorityError(f"{folder} holds an authority already; it is never overwritten")
        operator = SigningKey.generate(KeyKind.OPERATOR)
        account = SigningKey.generate(KeyKind.ACCOUNT)
        system = SigningKey.generate(KeyKind.ACCOUNT)
        look_account = SigningKey.generate(KeyKind.ACCOUNT)
        look_signing = SigningKey.generate(KeyKind.ACCOUNT)
        signing = {role: SigningKey.generate(KeyKind.ACCOUNT) for role in ROLES}
        secrets = {
            "operator": operator,
            "account": account,
            "system": system,
            "look": look_account,
            "signing/look": look_signing,
        }
        for role, key in signing.items():
            secrets[f"signing/{role}"] = key
        for name, key in secrets.items():
            credentials.write_secret(folder / f"{name}.seed", key.seed + "\n")
        fleet = Fleet(
            operator=operator.public,
            account=account.public,
            system_account=system.public,
            look_account=look_account.public,
            look_signing_key=look_signing.public,
            look_user=SigningKey.generate(KeyKind.USER).public,
            signing_keys={role: key.public for role, key in signing.items()},
            role_accounts={role: _new_account() for role in accounts.apart()},
        )
        authority = cls(folder, fleet)
        authority._write_system_credentials(system)
        authority._save(fleet)  # last: without it there is no authority
        return authority

    @classmethod
    def load(cls, folder: Path) -> "Authority":
        """Reads an authority. Raises AuthorityError or CredentialsError."""
        path = folder / fleet_file.FLEET
        try:
            fleet = fleet_file.decode(path.read_bytes())
        except FileNotFoundError:
            raise AuthorityError(
                f"no authority in {folder}: make one with `gpuping creds init`"
            ) from None
        except (OSError, msgspec.DecodeError) as error:
            raise AuthorityError(f"{path} cannot be read: {error}") from None
        return cls(folder, fleet)

    @property
    def system_credentials(self) -> Path:
        """The file of the user that may send changed accounts to the server.

        It stays with the authority: a server takes any account that the operator has ever signed,
        so that an earlier one undoes the revocations since.
        """
        return self.folder / "system.creds"

    @property
    def scheduler_system_credentials(self) -> Path:
        """The file of the user by which schedulers hear who connects, and close connections."""
        return self.folder / "system-scheduler.creds"

    def accept_unsigned(self, until: int | None = None) -> None:
        """For a fleet of before identities: its hosts have no keys yet, and go on without.

        `until`: seconds since 1970; UNSIGNED_DAYS from now where it is None.
        """
        if until is None:
            until = int(time.time()) + UNSIGNED_DAYS * _DAY
        self._save(replace(self.fleet, requires_signed=False, unsigned_until=until))

    @property
    def can_revoke(self) -> bool:
        """Whether the operator's key is here, without which no account can be changed."""
        return (self.folder / "operator.seed").exists()

    def add_missing_roles(self) -> None:
        """Makes what an authority of an earlier version does not have.

        A role that lived in the fleet's account gets one of its own and a new signing key.
        Credentials of the earlier key go on where they were until `retire`.
        """
        for role in ROLES:
            is_apart = role in accounts.apart()
            earlier = self.fleet.signing_keys.get(role)
            if earlier and (not is_apart or role in self.fleet.role_accounts):
                continue
            fleet = self.fleet
            if is_apart:
                own_accounts = fleet.role_accounts | {role: _new_account()}
                fleet = replace(fleet, role_accounts=own_accounts)
            if earlier:
                fleet = replace(fleet, in_fleet=fleet.in_fleet | {earlier: role})
            key = SigningKey.generate(KeyKind.ACCOUNT)
            credentials.write_secret(self.folder / "signing" / f"{role}.seed", key.seed + "\n")
            self._save(replace(fleet, signing_keys=fleet.signing_keys | {role: key.public}))
        if not self.fleet.requires_signed and self.fleet.unsigned_until is None:
            self.accept_unsigned()  # of a version that knew no end
        self._renew_system_credentials()

    def account_of(self, role: RoleName) -> str:
        """The account that the users of a role belong to."""
        return self.fleet.role_accounts.get(role, self.fleet.account)

    # ---- users ----

    def mint(
        self,
        role: RoleName,
        name: str,
        public_key: str,
        *,
        now: int,
        expires_at: int | None,
        site_agents: Iterable[str] = (),
    ) -> str:
        """Returns a user's token for a key whose seed stays where it was made.

        The server need not hear of it. An agent's name is its id; a service's begins with `_`, so
        that no agent can have it. `site_agents`: of a leaf node. Raises BadMessageError for another
        name, InvalidKeyError for another key.
        """
        check_public_key(public_key, KeyKind.USER)
        check_agent_id(name.removeprefix("_") if role != "agent" else name)
        signer = self._seed(f"signing/{role}")
        body: dict[str, Any] = {"type": "user", "issuer_account": self.account_of(role)}
        tags = [f"agent:{check_agent_id(agent_id)}" for agent_id in site_agents]
        if tags:
            body["tags"] = tags
        return claims.encode(signer, public_key, name, body, now=now, expires_at=expires_at)

    def issue(
        self,
        role: RoleName,
        name: str,
        path: Path,
        *,
        days: int | None = None,
        until: int | None = None,
        site_agents: Iterable[str] = (),
    ) -> str:
        """Makes a key and a token, writes both to a credentials file. Returns the public key.

        They are good for so many days, or `until` a second since 1970.
        """
        key = SigningKey.generate(KeyKind.USER)
        now = int(time.time())
        valid_days = days if days is not None else _default_days(role)
        expires_at = now + valid_days * _DAY
        if until is not None:
            expires_at = until
        token = self.mint(
            role,
            name,
            key.public,
            now=now,
            expires_at=expires_at,
            site_agents=site_agents,
        )
        credentials.write_secret(path, credentials.to_text(token, key))
        issued = Issued(
            role=role,
            name=name,
            public_key=key.public,
            issued_at=now,
            expires_at=expires_at,
            signed_by=self.signer_of(role),
        )
        self.record(issued)
        return key.public

    def issue_leaf_system(self, name: str, path: Path) -> None:
        """Writes the credentials by which a site's server hears of changed accounts."""
        check_agent_id(name.removeprefix("_"))
        body = {
            "type": "user",
            "pub": {"allow": list(LEAF_SYSTEM_PUBLISH)},
            "sub": {"allow": list(LEAF_SYSTEM_SUBSCRIBE)},
            "subs": _UNLIMITED,
            "data": _UNLIMITED,
            "payload": _UNLIMITED,
            "allowed_connection_types": ["LEAFNODE"],
        }
        key = SigningKey.generate(KeyKind.USER)
        now = int(time.time())
        token = claims.encode(
            self._seed("system"),
            key.public,
            name,
            body,
            now=now,
            expires_at=now + SERVICE_DAYS * _DAY,
        )
        credentials.write_secret(path, credentials.to_text(token, key))

    def record(self, issued: Issued) -> None:
        """Notes who was given credentials, so that they can be revoked by name."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        name = fleet_file.ISSUED
        if issued.role in fleet_file.LATER_ROLES:
            name = fleet_file.ISSUED_LATER
        descriptor = os.open(self.folder / name, flags, 0o600)
        with os.fdopen(descriptor, "ab") as file:
            file.write(msgspec.json.encode(issued) + b"\n")

    def issued(self) -> list[Issued]:
        """Every user that was given credentials from this folder, oldest first.

        One whose credentials were renewed is there once: since it has its key, until when and by
        which signing key the newest ones are good.
        """
        users: dict[str, Issued] = {}
        for user in fleet_file.issued_in(self.folder):
            first = users.setdefault(user.public_key, user)
            users[user.public_key] = replace(user, issued_at=first.issued_at)
        return sorted(users.values(), key=lambda user: user.issued_at)

    def is_believed(self, user: Issued) -> bool:
        """Whether the key that signed a user's credentials is still one of its role.

        True where the key is not known, as in the lines of earlier versions.
        """
        fleet = self.fleet
        if not user.signed_by or fleet.signing_keys.get(user.role) == user.signed_by:
            return True
        return user.role in {fleet.retiring.get(user.signed_by), fleet.in_fleet.get(user.signed_by)}

    def signer_of(self, role: RoleName) -> str:
        """The public half of the key that signs credentials of a role here."""
        return self._seed(f"signing/{role}").public

    def not_renewed(self, role: RoleName, elsewhere: Iterable[Issued] = ()) -> list[str]:
        """The names, sorted, of the users of a role whom `retire` would shut out.

        Their newest credentials are valid, and were signed by an earlier key of the role.
        `elsewhere`: users that were given credentials from another folder, as by an enrolment
        service of its own.
        """
        self.reload()
        users = sorted([*self.issued(), *elsewhere], key=lambda user: user.issued_at)
        newest = {user.name: user for user in users if user.role == role}
        now = time.time()
        found = []
        for name, user in sorted(newest.items()):
            is_good = user.public_key not in self.fleet.revoked and user.expires_at > now
            if user.signed_by == self.fleet.signing_keys[role]:
                continue
            if is_good and self.is_believed(user):
                found.append(name)
        return found

    # ---- what the server is told ----

    def revoke(self, public_keys: Iterable[str]) -> None:
        """Voids every token for these keys, for ever. The server hears of it with `account_token`.

        A server voids tokens that were issued until a moment. With that of the revocation, a token
        would outlive it that an enrolment service had issued whose clock was ahead, or that a thief
        of the agents' signing key issued later. Who comes back has a new key.

        Raises AuthorityError, and changes nothing, where the operator's key is not here.
        """
        self._need_operator()
        self.reload()
        revoked = dict(self.fleet.revoked)
        for key in public_keys:
            revoked[check_public_key(key, KeyKind.USER)] = _FOR_EVER
        self._save(replace(self.fleet, revoked=revoked))

    def rotate(self, role: RoleName) -> None:
        """Makes a new signing key for a role. Tokens of the earlier one are good until `retire`.

        Raises AuthorityError, and changes nothing, where the operator's key is not here.
        """
        self._need_operator()
        self.reload()
        key = SigningKey.generate(KeyKind.ACCOUNT)
        earlier = self.fleet.signing_keys[role]
        credentials.write_secret(self.folder / "signing" / f"{role}.seed", key.seed + "\n")
        fleet = replace(
            self.fleet,
            signing_keys=self.fleet.signing_keys | {role: key.public},
            retiring=self.fleet.retiring | {earlier: role},
        )
        if role == "scheduler":
            retiring_system = self._with_retiring_system_users().retiring_system
            fleet = replace(fleet, retiring_system=retiring_system)
        self._save(fleet)
        if role == "scheduler":
            self._write_system_credentials(self._seed("system"))

    def retire(self, role: RoleName) -> int:
        """Ends the rotation of a role: its earlier keys are void. Returns how many there were.

        Raises AuthorityError, and changes nothing, where the operator's key is not here.
        """
        self._need_operator()
        self.reload()
        fleet = self.fleet
        retiring = dict(fleet.retiring)
        in_fleet = dict(fleet.in_fleet)
        retired = 0
        for keys in (retiring, in_fleet):
            for key in _keys_of(keys, role):
                del keys[key]
                retired += 1
        fleet = replace(fleet, retiring=retiring, in_fleet=in_fleet)
        if role == "scheduler":
            revoked = fleet.revoked_system | dict.fromkeys(fleet.retiring_system, _FOR_EVER)
            fleet = replace(fleet, retiring_system=(), revoked_system=revoked)
        self._save(fleet)
        return retired

    def operator_token(self) -> str:
        """What the server's configuration calls `operator`."""
        body = {"type": "operator", "system_account": self.fleet.system_account}
        return claims.encode(
            self._seed("operator"), self.fleet.operator, "gpuping", body, now=int(time.time())
        )

    def account_token(self) -> str:
        """The fleet's account: its roles' permissions, its exports, the revocations."""
        role_of_key = {key: role for role, key in self.fleet.signing_keys.items()}
        role_of_key |= self.fleet.retiring
        for key, role in list(role_of_key.items()):
            if role in self.fleet.role_accounts:
                del role_of_key[key]
        role_of_key |= self.fleet.in_fleet
        body: dict[str, Any] = {
            "type": "account",
            "limits": _account_limits(jetstream=True),
            "signing_keys": _scopes(role_of_key),
            "exports": self._exports(None),
        }
        if self.fleet.revoked:
            body["revocations"] = self.fleet.revoked
        return self._account(self.fleet.account, ACCOUNT_NAME, body)

    def role_account_token(self, role: RoleName) -> str:
        """The account of a role that lives apart from the fleet's."""
        keys = [self.fleet.signing_keys[role], *_keys_of(self.fleet.retiring, role)]
        body: dict[str, Any] = {
            "type": "account",
            "limits": _account_limits(jetstream=False),
            "signing_keys": _scopes(dict.fromkeys(keys, role)),
            "exports": self._exports(role),
            "imports": self._imports(role),
        }
        users = {user.public_key for user in self.issued() if user.role == role}
        revoked = {key: until for key, until in self.fleet.revoked.items() if key in users}
        if revoked:
            body["revocations"] = revoked
        return self._account(self.fleet.role_accounts[role], f"{ACCOUNT_NAME}_{role.upper()}", body)

    def _exports(self, owner: RoleName | None) -> list[dict[str, Any]]:
        offered = list(accounts.exports_of(owner))
        if owner is None:
            subjects_offered = [export.subject for export in offered]
            for subject, _ in LOOK_IMPORTS:
                if subject not in subjects_offered:
                    offered.append(accounts.Export(subject))
        exports = []
        for number, export in enumerate(offered):
            entry = {"name": f"{number}", "subject": export.subject, "type": export.kind}
            if export.is_answered_often:
                entry["response_type"] = "Stream"
            exports.append(entry)
        return exports

    def _imports(self, owner: RoleName) -> list[dict[str, Any]]:
        imports = []
        for number, taken in enumerate(accounts.imports_of(owner)):
            provider = self.fleet.account
            if taken.provider is not None:
                provider = self.fleet.role_accounts[taken.provider]
            entry = {
                "name": f"{number}",
                "subject": taken.subject,
                "account": provider,
                "type": taken.kind,
            }
            imports.append(entry)
        return imports

    def look_account_token(self) -> str:
        """The account of anonymous looks on loopback.

        It imports the look of each agent, and the reading of one key, and nothing else.

        A viewer inside the fleet's account could not be kept from writing: JetStream answers a
        request for a message to whatever reply subject it names, a key of the bucket included.
        """
        scope = {
            "kind": "user_scope",
            "key": self.fleet.look_signing_key,
            "role": "look",
            "template": {
                "pub": {"allow": list(LOOK_PUBLISH)},
                "sub": {"allow": ["_INBOX.>"]},
                "subs": 100,
                "data": _UNLIMITED,
                "payload": 4096,
                "bearer_token": True,
                "src": _LOOPBACK,
            },
        }
        imports = []
        for number, (exported, asked) in enumerate(LOOK_IMPORTS):
            imported = {
                "name": f"look-{number}",
                "subject": exported,
                "local_subject": asked,
                "account": self.fleet.account,
                "type": "service",
            }
            imports.append(imported)
        body = {
            "type": "account",
            "limits": _account_limits(jetstream=False),
            "signing_keys": [scope],
            "imports": imports,
        }
        return self._account(self.fleet.look_account, LOOK_ACCOUNT_NAME, body)

    def system_account_token(self) -> str:
        """The server's own account."""
        body: dict[str, Any] = {"type": "account", "limits": _account_limits(jetstream=False)}
        if self.fleet.revoked_system:
            body["revocations"] = self.fleet.revoked_system
        return self._account(self.fleet.system_account, SYSTEM_ACCOUNT_NAME, body)

    def anonymous_token(self) -> str:
        """`default_sentinel` of the server.

        Whoever connects without credentials may look, and no more.
        """
        body = {"type": "user", "issuer_account": self.fleet.look_account}
        return claims.encode(
            self._seed("signing/look"), self.fleet.look_user, "_look", body, now=int(time.time())
        )

    def server_tokens(self) -> Mapping[str, str]:
        """The accounts that a server's resolver is preloaded with, by public key."""
        return {
            self.fleet.system_account: self.system_account_token(),
            self.fleet.account: self.account_token(),
            self.fleet.look_account: self.look_account_token(),
        } | self.role_account_tokens()

    def roles_of(self, public_keys: Iterable[str]) -> set[RoleName]:
        """The roles of users that were given credentials from this folder."""
        wanted = set(public_keys)
        return {user.role for user in self.issued() if user.public_key in wanted}

    def role_account_tokens(self) -> dict[str, str]:
        """The accounts of roles that live apart, by public key."""
        tokens = {}
        for role, account in self.fleet.role_accounts.items():
            tokens[account] = self.role_account_token(role)
        return tokens

    def _account(
        self,
        public: str,
        name: str,
        body: dict[str, Any],
    ) -> str:
        now = max(int(time.time()), self.fleet.changed_at)
        return claims.encode(self._seed("operator"), public, name, body, now=now)

    def _with_retiring_system_users(self) -> Fleet:
        """The fleet, in which the present users of the system account are good until `retire`."""
        keys = set(self.fleet.retiring_system)
        for path, _, _ in self._system_users():
            if path.exists():
                keys.add(credentials.read(path).key.public)
        return replace(self.fleet, retiring_system=tuple(sorted(keys)))

    def _write_system_credentials(self, system: SigningKey) -> None:
        for path, name, body in self._system_users():
            key = SigningKey.generate(KeyKind.USER)
            token = claims.encode(system, key.public, name, body, now=int(time.time()))
            credentials.write_secret(path, credentials.to_text(token, key))

    def _renew_system_credentials(self) -> None:
        """Those of an earlier version are missing, or may not ask all that is asked now."""
        if not (self.folder / "system.seed").exists():
            return
        for path, _, wanted in self._system_users():
            known: dict[str, Any] = {}
            if path.exists():
                known = claims.decode(credentials.read(path).token).nats
            if any(known.get(name) != value for name, value in wanted.items()):
                self._save(self._with_retiring_system_users())
                self._write_system_credentials(self._seed("system"))
                return

    def _system_users(self) -> list[tuple[Path, str, dict[str, Any]]]:
        """The users of the system account: their files, names, and what they may do.

        The token of the schedulers' one says which account the gateways are in.
        """
        asked = [
            subjects.account_connections("*"),
            subjects.SERVER_JETSTREAM,
            subjects.SERVER_HEALTH,
            subjects.close_connection("*"),
        ]
        limits = {"subs": _UNLIMITED, "data": _UNLIMITED, "payload": _UNLIMITED}
        heard = ["_INBOX.>", "$SYS.ACCOUNT.*.CONNECT", "$SYS.ACCOUNT.*.DISCONNECT"]
        tags = [f"{GATEWAYS_TAG}{self.account_of('gateway')}"]
        shared: dict[str, Any] = {"type": "user", "tags": tags, "sub": {"allow": heard}, **limits}
        return [
            (
                self.system_credentials,
                "_system",
                shared | {"pub": {"allow": [subjects.CLAIMS_UPDATE, *asked]}},
            ),
            (
                self.scheduler_system_credentials,
                "_system-scheduler",
                shared | {"pub": {"allow": asked}},
            ),
        ]

    def reload(self) -> None:
        """Reads the fleet again: another process may have changed it."""
        self.fleet = type(self).load(self.folder).fleet

    def _need_operator(self) -> None:
        """Servers take no changed account without it: what is written here would not be so."""
        if not self.can_revoke:
            raise AuthorityError(
                f"{self.folder / 'operator.seed'} is not here, and nothing was changed: "
                "put it back from where it is kept, then give this command again"
            )

    def _seed(self, name: str) -> SigningKey:
        path = self.folder / f"{name}.seed"
        if not path.exists():
            raise AuthorityError(f"{path} is not here: this folder cannot sign with that key")
        return SigningKey.from_seed(credentials.read_secret(path))

    def _save(self, fleet: Fleet) -> None:
        changed_at = max(int(time.time()), self.fleet.changed_at + 1)
        fleet = replace(fleet, changed_at=changed_at)
        text = fleet_file.encode(fleet).decode()
        credentials.write_secret(self.folder / fleet_file.FLEET, text)
        self.fleet = fleet


def _new_account() -> str:
    return SigningKey.generate(KeyKind.ACCOUNT).public


def _scopes(role_of_key: Mapping[str, RoleName]) -> list[dict[str, Any]]:
    """The scoped signing keys of an account: whom each may make, and with which permissions."""
    scopes = []
    for key, role in role_of_key.items():
        scope = {
            "kind": "user_scope",
            "key": key,
            "role": role,
            "template": template(ROLES[role]),
        }
        scopes.append(scope)
    return scopes


def _keys_of(roles_by_key: Mapping[str, RoleName], role: RoleName) -> list[str]:
    return [key for key, role_of_key in roles_by_key.items() if role_of_key == role]


def _default_days(role: RoleName) -> int:
    if role == "agent":
        return USER_DAYS
    return SERVICE_DAYS


def _account_limits(*, jetstream: bool) -> dict[str, Any]:
    """No limits but those that keep an account from JetStream."""
    limits: dict[str, Any] = {
        "subs": _UNLIMITED,
        "data": _UNLIMITED,
        "payload": _UNLIMITED,
        "imports": _UNLIMITED,
        "exports": _UNLIMITED,
        "wildcards": True,
        "conn": _UNLIMITED,
        "leaf": _UNLIMITED,
    }
    if jetstream:
        limits |= {
            "mem_storage": _UNLIMITED,
            "disk_storage": _UNLIMITED,
            "streams": _UNLIMITED,
            "consumer": _UNLIMITED,
        }
    return limits
