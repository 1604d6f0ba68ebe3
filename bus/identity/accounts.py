"""Which account each role lives in, and what the accounts export to and import from each other.

JetStream answers a request to whatever reply subject it names, with rights of its own: inside one
account, whoever may ask it for anything may have it write anywhere. An answer that crosses an
import arrives in the asker's account only. Services that must read streams, or write a few keys,
therefore live in an account of their own each. What such an account imports is what its role may
publish, so that an answer of JetStream's can cause nothing that the role may not do by itself.

Hosts, the scheduler and people share the fleet's account, which imports nothing. The services hear
its questions as a stream, so that they see to which subject an answer would go.
"""

from collections.abc import Iterable
from typing import Literal, NamedTuple

from bus.contract import subjects
from bus.identity.roles import ROLES, RoleName

Kind = Literal["service", "stream"]
Reach = Literal["nothing", "own", "fleet"]

EVERY_INBOX = f"{subjects.INBOX_PREFIX}.>"
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


def imports_of(owner: RoleName) -> tuple[Import, ...]:
    """What the account of a role imports."""
    return tuple(dict.fromkeys([*_imports_to_ask(owner), *_imports_to_hear(owner)]))


def exports_of(owner: RoleName | None) -> tuple[Export, ...]:
    """What the account of a role exports, or that of the fleet (None): all that others import."""
    offered: dict[tuple[Kind, str], None] = {}
    for importer in apart():
        for taken in imports_of(importer):
            if taken.provider == owner and importer != owner:
                offered[taken.kind, taken.subject] = None
    exports = []
    for kind, subject in offered:
        if _has_wider(kind, subject, offered):
            continue
        is_answered_often = kind == "service" and _is_answered_often(subject)
        exports.append(Export(subject, kind, is_answered_often))
    return tuple(exports)


def _has_wider(
    kind: Kind,
    subject: str,
    offered: Iterable[tuple[Kind, str]],
) -> bool:
    """Whether another export of the kind has the subject as well."""
    for other_kind, other in offered:
        if other_kind == kind and other != subject and covers(other, subject):
            return True
    return False


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


def _imports_to_ask(owner: RoleName) -> Iterable[Import]:
    for subject in ROLES[owner].publish:
        if subject.startswith(subjects.JETSTREAM_API):
            # The import has to have the name of all of JetStream's API, because the server itself
            # answers in its place otherwise. What may be asked is in the role's permissions.
            yield Import(f"{subjects.JETSTREAM_API}.>", None)
        elif not subject.startswith((*subjects.INBOXES, subjects.DISCOVERY_PREFIX)):
            provider = _provider_of(subject)
            if provider != owner:
                yield Import(subject, provider)


def _imports_to_hear(owner: RoleName) -> Iterable[Import]:
    for subject in ROLES[owner].subscribe:
        if subject in _EVENTS:
            yield Import(subject, None, "stream")
    askers: set[str] = set()
    for heard in _heard(owner):
        asking = _askers_in_fleet(heard)
        if asking:
            # As a stream, and not as a service of which the fleet takes the answers: the server
            # would put those on whatever reply subject the asker named, a key of the bucket
            # included, and the service could not see which it is.
            yield Import(heard, None, "stream")
            askers |= asking
    for inbox in sorted(askers):
        if not any(covers(other, inbox) for other in askers - {inbox}):
            yield Import(inbox, None)


def _askers_in_fleet(heard: str) -> set[str]:
    """The inboxes of the roles in the fleet's account that may ask this."""
    found = set()
    for role in ROLES.values():
        if role.has_own_account:
            continue
        if not any(covers(heard, asked) or covers(asked, heard) for asked in role.publish):
            continue
        for inbox in role.subscribe:
            if not inbox.startswith(subjects.INBOXES):
                continue
            if "{{" in inbox:
                # The server puts a name in. Here the inbox stands for those of all names.
                found.add(EVERY_INBOX)
            else:
                found.add(inbox)
    return found


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
