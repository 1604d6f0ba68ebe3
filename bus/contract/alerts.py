"""Alerts: what is wrong now, what changed and is still to be told, and how the telling went.

A condition is something that is wrong for as long as it lasts, such as a host that does not answer.
A change is its begin or its end. A notification is one message to one target, about one change or
many that belong together. All three are kept in the bucket `gpuping_alerts`.
"""

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from bus.contract.messages import Message, Timestamp
from bus.contract.subjects import END

RuleName = Literal[
    "poor",
    "missing",
    "escalated",
    "recovered",
    "gpu-incident",
    "gpu-set-changed",
    "twin",
    "disconnected",
    "storage-lag",
    "disk",
    "clock",
    "certificate",
    "credential",
    "maintenance-budget",
]
Severity = Literal["info", "warning", "critical"]
ChangeKind = Literal["began", "ended", "happened"]
SendingState = Literal["waiting", "claimed", "sent", "failed"]
Labels = dict[str, str]
Author = Annotated[str, Meta(max_length=200)]


class Condition(Struct, kw_only=True, frozen=True):
    """Something that is wrong since `since`.

    `detail` is one sentence without the name of the host. `labels` belong to the condition itself,
    such as `gpu` and `reason`. One that is not `told` yet has not lasted long enough for an alert.
    """

    rule: RuleName
    since: Timestamp
    detail: str = ""
    labels: Labels = msgspec.field(default_factory=dict)
    told: bool = True


class Conditions(Message, kw_only=True, frozen=True):
    """`condition.<source>.<name>`: everything that one source holds to be wrong with one thing.

    `name` is an agent's id, or the name of a machine. `position` is the `ping_seq` of the outcome
    that was judged last, 0 for sources that are no outcomes.
    """

    name: str
    position: int = 0
    active: dict[str, Condition] = msgspec.field(default_factory=dict)


class AlertChange(Message, kw_only=True, frozen=True):
    """`change.<id>`: a condition that began or ended, or an event, that is still to be told.

    `about` is an agent's id, or the name of a machine; `condition` names the condition among those
    of the same thing. It lasts since `since`, and changed at `at`. `labels` are those of the
    condition and of the host. `done` are the targets that have it in a notification already.
    """

    change_id: str
    rule: RuleName
    kind: ChangeKind
    condition: str
    about: str
    at: Timestamp
    since: Timestamp
    recorded_at: Timestamp
    detail: str = ""
    labels: Labels = msgspec.field(default_factory=dict)
    done: tuple[str, ...] = ()


class Notification(Message, kw_only=True, frozen=True):
    """`notification.<id>`: one message to one target. `notification_id` is its idempotency key.

    It is sent by whoever claims it (`claimed_by`). `attempts` counts the claims; `error` is why the
    last attempt failed.
    """

    notification_id: str
    target: str
    severity: Severity
    title: str
    text: str
    changes: tuple[AlertChange, ...]
    made_at: Timestamp
    state: SendingState = "waiting"
    attempts: int = 0
    next_attempt_at: Timestamp
    claimed_by: str | None = None
    error: str | None = None
    sent_at: Timestamp | None = None


class Silence(Message, kw_only=True, frozen=True):
    """`silence.<id>`: until `until` nothing is told of changes that have all these labels.

    A value may have the wildcards `*` and `?`. What is still wrong at the end is told then.
    """

    silence_id: str
    match: Labels
    until: Timestamp
    reason: str
    author: str = ""
    made_at: Timestamp


class Position(Message, kw_only=True, frozen=True):
    """`position`: up to this sequence of the history, every change is recorded.

    What the history held up to `began` was looked at as it was then, without its past.
    """

    sequence: int
    began: int


# ---- questions to the alerts service ----


class AlertsRequest(Message, kw_only=True, frozen=True):
    """Asks what is wrong, and for the newest `limit` notifications, the sent ones included."""

    limit: Annotated[int, Meta(ge=1, le=1000)] = 100


class ActiveAlert(Struct, kw_only=True, frozen=True):
    """One condition as lists show it. `silenced` tells whether a silence holds its alert back."""

    about: str
    rule: RuleName
    severity: Severity
    since: datetime
    detail: str
    labels: Labels
    silenced: bool


class SentNotification(Struct, kw_only=True, frozen=True):
    """A notification as lists show it, without the changes in it."""

    notification_id: str
    target: str
    severity: Severity
    title: str
    changes: int
    made_at: datetime
    state: SendingState
    attempts: int
    next_attempt_at: datetime | None
    error: str | None
    sent_at: datetime | None


class Alerts(Message, kw_only=True, frozen=True):
    """What is wrong, the most severe first; what is to be sent, was sent or could not be.

    As much of each as fits into a message. `total` counts all that is wrong, `held` the changes
    that wait: for their group, for the end of quiet hours or of a silence. `targets` are the names
    of the targets in the alerts file.
    """

    active: tuple[ActiveAlert, ...]
    total: int
    notifications: tuple[SentNotification, ...]
    silences: tuple[Silence, ...]
    held: int
    targets: tuple[str, ...]


class TestRequest(Message, kw_only=True, frozen=True):
    """Asks for a test message to one target, or to all."""

    target: str | None = None


class TestResult(Struct, kw_only=True, frozen=True):
    """What became of a test message; `error` is None where the target took it."""

    target: str
    error: str | None = None


class TestResults(Message, kw_only=True, frozen=True):
    """One result a target, in the order of the alerts file."""

    results: tuple[TestResult, ...]


class SilenceRequest(Message, kw_only=True, frozen=True):
    """Asks for a silence of `seconds` for changes that have all these labels."""

    match: Annotated[
        dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=200)]],
        Meta(min_length=1, max_length=20),
    ]
    seconds: Annotated[float, Meta(gt=0, le=366 * 86_400)]
    reason: Annotated[str, Meta(min_length=1, max_length=500)]
    author: Author = ""


class EndSilenceRequest(Message, kw_only=True, frozen=True):
    """Ends a silence now."""

    silence_id: Annotated[str, Meta(pattern=r"^[a-z0-9]{1,32}" + END)]
    author: Author = ""


class AlertsSummary(Struct, kw_only=True, frozen=True):
    """What the page shows of alerts.

    How much is wrong and not silenced, by severity, and how many notifications are refused so far.
    """

    by_severity: dict[Severity, int]
    unsent: int


class AlertsStats(Message, kw_only=True, frozen=True):
    """Figures of the alerts service, for metrics. `sent` counts since the start, by target.

    `active` counts conditions by rule, `by_severity` those that are not silenced.
    """

    active: dict[str, int]
    by_severity: dict[Severity, int]
    held: int
    waiting: int  # notifications that are not sent yet
    retrying: int  # of those, the ones that were refused at least once
    failed: int  # given up
    oldest_waiting_seconds: float
    sent: dict[str, int]
