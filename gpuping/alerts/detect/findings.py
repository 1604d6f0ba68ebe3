"""What a source finds wrong, and the changes that follow from it. Pure."""

import hashlib
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import NamedTuple

from msgspec.structs import replace

from bus.contract.alerts import AlertChange, ChangeKind, Condition, Conditions, Labels, RuleName

# This condition is no fault by itself: its end is what is told.
TOLD_AT_ITS_END: RuleName = "recovered"
AT_ONCE = timedelta(0)


class Event(NamedTuple):
    """Something that began and ended within one look."""

    key: str
    condition: Condition
    until: datetime


class Findings(NamedTuple):
    """What a source holds to be wrong now, by key.

    `kept` are the keys of rules about which it learned nothing: what was wrong stays so. With
    `is_gone` there is nothing left to be wrong, and no end is told.
    """

    active: Mapping[str, Condition] = {}
    kept: frozenset[RuleName] = frozenset()
    events: tuple[Event, ...] = ()
    is_gone: bool = False


class Subject(NamedTuple):
    """Whom findings are about: the source, the name, the labels, and the `ping_seq` if any."""

    source: str
    name: str
    labels: Labels
    position: int = 0


class Moment(NamedTuple):
    """When something was found, by the outcome, and when that is recorded."""

    at: datetime
    now: datetime


class Transition(NamedTuple):
    """The conditions from now on, and what is to be told."""

    after: Conditions
    changes: tuple[AlertChange, ...]


def advance(
    before: Conditions | None,
    subject: Subject,
    findings: Findings,
    moment: Moment,
    delay: timedelta = AT_ONCE,
) -> Transition | None:
    """What begins and ends by these findings; None where nothing changes.

    A condition is told once it has lasted for `delay`.
    """
    earlier: dict[str, Condition] = {}
    if before is not None:
        earlier = before.active
    active: dict[str, Condition] = {}
    for key, found in findings.active.items():
        active[key] = _lasting(earlier.get(key), found, moment.at, delay)
    for key, condition in earlier.items():
        if key not in active and condition.rule in findings.kept and not findings.is_gone:
            active[key] = condition
    changes = [
        *_begun(subject, earlier, active, moment),
        *_ended(subject, earlier, active, moment, is_gone=findings.is_gone),
    ]
    for event in findings.events:
        if event.key not in earlier and event.key not in active:
            ended = Moment(event.until, moment.now)
            changes.append(_change(subject, event.key, event.condition, "happened", ended))
    if not changes and _same(earlier, active):
        return None
    after = Conditions(name=subject.name, position=subject.position, active=active)
    return Transition(after, tuple(changes))


def _begun(
    subject: Subject,
    earlier: dict[str, Condition],
    active: dict[str, Condition],
    moment: Moment,
) -> Iterator[AlertChange]:
    for key, condition in active.items():
        was_told = key in earlier and earlier[key].told
        if condition.told and not was_told and condition.rule != TOLD_AT_ITS_END:
            yield _change(subject, key, condition, "began", moment)


def _ended(
    subject: Subject,
    earlier: dict[str, Condition],
    active: dict[str, Condition],
    moment: Moment,
    *,
    is_gone: bool,
) -> Iterator[AlertChange]:
    for key, condition in earlier.items():
        if key in active or is_gone or not condition.told:
            continue
        kind: ChangeKind = "ended"
        if condition.rule == TOLD_AT_ITS_END:
            kind = "happened"
        yield _change(subject, key, condition, kind, moment)


def _lasting(
    earlier: Condition | None,
    found: Condition,
    at: datetime,
    delay: timedelta,
) -> Condition:
    if earlier is not None and earlier.told:
        return earlier
    since = min(found.since, at)  # an answer may show what began after its ping was sent
    if earlier is not None:
        since = earlier.since
    return replace(found, since=since, told=at - since >= delay)


def _same(earlier: dict[str, Condition], active: dict[str, Condition]) -> bool:
    if earlier.keys() != active.keys():
        return False
    return all(earlier[key].told == active[key].told for key in active)


def _change(
    subject: Subject,
    key: str,
    condition: Condition,
    kind: ChangeKind,
    moment: Moment,
) -> AlertChange:
    told = f"{subject.source}/{subject.name}/{subject.position}/{key}/{kind}/{condition.since}"
    if not subject.position:
        told += f"/{moment.at}"
    return AlertChange(
        change_id=hashlib.blake2b(told.encode(), digest_size=12).hexdigest(),
        rule=condition.rule,
        kind=kind,
        condition=key,
        about=subject.name,
        at=moment.at,
        since=condition.since,
        recorded_at=moment.now,
        detail=condition.detail,
        labels=subject.labels | condition.labels,
    )
