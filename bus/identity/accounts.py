"""Which account each role lives in, and what the accounts export to and import from each other.

JetStream answers a request to whatever reply subject it names, with rights of its own: inside one
account, whoever may ask it for anything may have it write anywhere. An answer that crosses an
import arrives in the asker's account only. Services that must read streams, or write a few keys,
therefore live in an account of their own each. What such an account imports is what its role may
publish, so that an answer of JetStream's can cause nothing that the role may not do by itself.

Hosts, the scheduler and people share the fleet's account.
"""

from collections.abc import Iterable
from typing import Literal, NamedTuple

from bus.contract import subjects
from bus.identity.roles import ROLES, RoleName

Kind = Literal["service", "stream"]
Reach = Literal["nothing", "own", "fleet"]

_EVENTS = (subjects.EVENT_ALL,)  # are heard and never answered
_ASKED_OF_ALL = (subjects.STATS,)  # of every instance; each answers


class Export(NamedTuple):
    """What an account offers to others. `is_answered_often`: to one request, many answers."""

    subject: str
    kind: Kind = "service"
    is_answered_often: bool = False


class Import(NamedTuple):
    """What an account takes from another: that of the role `provider`, or of the fleet (None)."""

    subject: str
    provider: RoleName | None
    kind: Kind = "service"


def apart() -> tuple[RoleName, ...]:
    """The roles that live in an account of their own."""
    return tuple(name for name, role in ROLES.items() if role.has_own_account)


def reach_of(name: RoleName) -> Reach:
    """Where a role can have JetStream write, by naming a subject for the answer to a request."""
    role = ROLES[name]
    if role.has_own_account:
        return "own"
    if any(subject.startswith(subjects.JETSTREAM_PREFIXES) for subject in role.publish):
        return "fleet"
    return "nothing"


def imports_of(owner: RoleName | None) -> tuple[Import, ...]:
    """What the account of a role imports, or that of the fleet (None)."""
    if owner is None:
        found = _imports_of_fleet()
    else:
        found = _imports_of_role(owner)
    return tuple(dict.fromkeys(found))


def exports_of(owner: RoleName | None) -> tuple[Export, ...]:
    """What the account of a role exports, or that of the fleet (None): all that others import."""
    kinds: dict[str, Kind] = {}
    for importer in (None, *apart()):
        for taken in imports_of(importer):
            if taken.provider == owner and importer != owner:
                kinds[taken.subject] = taken.kind
    exports = []
    for subject, kind in kinds.items():
        others = [other for other in kinds if other != subject]
        if any(covers(other, subject) for other in others):
            continue  # a wider export has it
        exports.append(Export(subject, kind, _is_answered_often(subject)))
    return tuple(exports)


def covers(pattern: str, subject: str) -> bool:
    """Whether every subject that `subject`, itself a pattern, stands for is one of `pattern`."""
    wanted = pattern.split(".")
    given = subject.split(".")
    for index, word in enumerate(wanted):
        if word == ">":
            return len(given) > index
        if index >= len(given) or given[index] == ">":
            return False
        if word not in {"*", given[index]}:
            return False
    return len(wanted) == len(given)


def _imports_of_fleet() -> Iterable[Import]:
    """What hosts, the scheduler and people ask of the services in accounts of their own."""
    asked = []
    for role in ROLES.values():
        if not role.has_own_account:
            asked += [
                subject
                for subject in role.publish
                if not subject.startswith(subjects.DISCOVERY_PREFIX)
            ]
    for name in apart():
        for heard in _heard(name):
            is_asked = any(covers(heard, subject) for subject in asked)
            if is_asked or heard.startswith(subjects.DISCOVERY_PREFIX):
                yield Import(heard, name)


def _imports_of_role(owner: RoleName) -> Iterable[Import]:
    for subject in ROLES[owner].publish:
        if subject.startswith(subjects.JETSTREAM_API):
            # The import has to have the name of all of JetStream's API, because the server itself
            # answers in its place otherwise. What may be asked is in the role's permissions.
            yield Import(f"{subjects.JETSTREAM_API}.>", None)
        elif not subject.startswith((*subjects.INBOXES, subjects.DISCOVERY_PREFIX)):
            provider = _provider_of(subject)
            if provider != owner:
                yield Import(subject, provider)
    for subject in ROLES[owner].subscribe:
        if subject in _EVENTS:
            yield Import(subject, None, "stream")


def _provider_of(subject: str) -> RoleName | None:
    for name in apart():
        if any(covers(heard, subject) for heard in _heard(name)):
            return name
    return None


def _heard(name: RoleName) -> list[str]:
    """The questions that a role answers."""
    heard = []
    for subject in ROLES[name].subscribe:
        if subject not in _EVENTS and not subject.startswith(subjects.INBOXES):
            heard.append(subject)
    return heard


def _is_answered_often(subject: str) -> bool:
    return (
        subject.startswith((subjects.JETSTREAM_API, subjects.DISCOVERY_PREFIX))
        or subject in _ASKED_OF_ALL
    )
