"""Lives of hosts as the scheduler measures and admits them, for tests of what is made of them.

A life is drawn by Hypothesis as a list of events. Each event is a ping: how long after the one
before, what came of it, and what the host said of its time. The windows and the times in them are
those of `scheduler/ping/accounting/admission.py`. The truth that answers are held against is only
where the enrolments began and ended, and which pings were asked.
"""

from datetime import datetime, timedelta
from typing import Literal

from hypothesis import strategies as st
from msgspec import Raw, Struct, structs

from bus.contract.durations import Durations, Interval
from bus.contract.expected_gpus import ALWAYS, FOR_EVER
from bus.contract.messages import (
    AgentState,
    Enrolment,
    GpuReport,
    GpuTime,
    Incident,
    Outcome,
    Standing,
    UptimeReport,
    Window,
    encode,
)
from scheduler.ping.accounting.admission import (
    MeasuredWindow,
    Refused,
    ReportedTime,
    admit,
)
from scheduler.ping.accounting.timestamps import milliseconds
from scheduler.policy import Answered, Excused, Missed, PingResult, Policy, advance

POLICY = Policy(
    base_seconds=900.0,
    max_seconds=86_400.0,
    multiplier=2.0,
    threshold_percent=99.0,
    recovery_pings=3,
    grace=True,
)
MINUTE_MS = 60_000
MILLISECOND = timedelta(milliseconds=1)
Kind = Literal["healthy", "dead", "re-enrolled", "replaced", "clock-broken"]
KINDS: tuple[Kind, ...] = ("healthy", "dead", "re-enrolled", "replaced", "clock-broken")


class Event(Struct, frozen=True):
    """A ping: the minutes since the one before, its outcome, and the host's down share in it.

    The minutes are below 0 where our own clock was set back meanwhile.
    """

    minutes: int
    outcome: Literal["answered", "missed", "excused"]
    down_thousandths: int
    unknown_thousandths: int
    is_lost: bool


class Life(Struct, frozen=True):
    """An agent's outcomes, those of them that reach history, and what the registry knows."""

    agent_id: str
    states: list[AgentState]
    kept: list[AgentState]
    enrolments: list[Enrolment]
    gpus: dict[str, tuple[Interval, ...]]  # milliseconds since 1970

    def asked_until(self, enrolment: Enrolment) -> datetime:
        """Returns the last ping of an enrolment that was sent and that history knows of.

        An excused one tells when the last answer before it was, also where that answer is lost.
        """
        last = enrolment.since
        begin = enrolment.since
        for one in self.kept:  # as they came, whatever our clock said
            at = one.last.pinged_at
            since = one.last.since
            assert since
            is_within = enrolment.since <= at and (enrolment.until is None or at < enrolment.until)
            if not is_within:
                continue
            if since > begin:
                last = begin = since
            if one.last.outcome == "answered":
                last = begin = at
            elif one.last.outcome == "missed":
                last = max(last, at)
        return last


events = st.lists(
    st.builds(
        Event,
        minutes=st.integers(-80, 1_200),
        outcome=st.sampled_from(["answered"] * 7 + ["missed"] * 3 + ["excused"]),
        down_thousandths=st.sampled_from([0, 0, 0, 1, 333, 1000]),
        unknown_thousandths=st.sampled_from([0, 0, 0, 7, 500]),
        is_lost=st.sampled_from([False] * 9 + [True]),
    ),
    min_size=2,
    max_size=60,
)


def live(agent_id: str, kind: Kind, start: datetime, told: list[Event]) -> Life:
    """Returns the life. The host dies, is replaced or registered again after half of its events."""
    half = len(told) // 2
    enrolled_at = start
    enrolments: list[Enrolment] = []
    gpus = {"GPU-old": ALWAYS, "GPU-other": ALWAYS}
    states: list[AgentState] = []
    lost: set[int] = set()
    now = start
    since = start
    for index, event in enumerate(told):
        if index == half and kind == "re-enrolled" and states:
            now = max(now, *(one.last.pinged_at for one in states))
            enrolments.append(Enrolment(enrolled_at, now + MILLISECOND))
            now += timedelta(hours=30, milliseconds=17)
            enrolled_at = now
            since = now
        now += timedelta(minutes=event.minutes, milliseconds=index)
        if index == half and kind == "replaced":
            changed = milliseconds(now) - event.minutes * MINUTE_MS // 2
            gpus["GPU-old"] = (Interval(FOR_EVER.begin, changed),)
            gpus["GPU-new"] = (Interval(changed, FOR_EVER.end),)
        outcome = event.outcome
        if kind == "dead" and index >= half and outcome == "answered":
            outcome = "missed"
        before = states[-1] if states else None
        number = len(states) + 1
        pinged_at = max(now, since)  # a clock that was set back makes an empty window
        last = _last(agent_id, number, since, pinged_at, outcome, event, gpus, kind)
        last = structs.replace(last, enrolled_at=enrolled_at)
        state = _state(agent_id, before, last)
        states.append(state)
        if state.last.outcome == "answered":
            since = pinged_at
        if event.is_lost and index < len(told) - 1:
            lost.add(state.ping_seq)
    enrolments.append(Enrolment(enrolled_at))
    kept = [one for one in states if one.ping_seq not in lost]
    return Life(agent_id, states, kept, enrolments, gpus)


def _state(agent_id: str, before: AgentState | None, last: Outcome) -> AgentState:
    """The outcome as the policy judges it."""
    result: PingResult
    match last.outcome:
        case "answered":
            result = Answered(last.uptime_percent, gpu_available=True)
        case "missed":
            result = Missed(last.reason or "timeout")
        case "excused":
            result = Excused("bus_outage")
    step = advance(before or Standing(), result, POLICY)
    last_answered_at = before.last_answered_at if before else None
    if last.outcome == "answered":
        last_answered_at = last.pinged_at
    judged = last.uptime_percent if step.verdict in {"good", "poor"} else None
    return AgentState(
        **{name: getattr(step.standing, name) for name in Standing.__struct_fields__},
        agent_id=agent_id,
        ping_seq=last.ping_seq,
        last_answered_at=last_answered_at,
        interval_seconds=step.interval_seconds,
        next_ping_at=last.pinged_at + timedelta(seconds=step.interval_seconds),
        last=structs.replace(last, verdict=step.verdict, reason=step.reason, uptime_percent=judged),
    )


def _last(
    agent_id: str,
    number: int,
    since: datetime,
    now: datetime,
    outcome: str,
    event: Event,
    expected: dict[str, tuple[Interval, ...]],
    kind: Kind,
) -> Outcome:
    last = Outcome(
        ping_id=f"{agent_id}-{number}",
        ping_seq=number,
        pinged_at=now,
        since=since,
        outcome="missed" if outcome == "answered" else outcome,  # type: ignore[arg-type]
        verdict="excused" if outcome == "excused" else "poor",
        reason="timeout",
    )
    if outcome == "answered":
        last = _answered(agent_id, last, event, expected, kind)
    return last


def _answered(
    agent_id: str,
    miss: Outcome,
    event: Event,
    expected: dict[str, tuple[Interval, ...]],
    kind: Kind,
) -> Outcome:
    """The outcome of an answered ping; a report that is refused leaves it a miss."""
    assert miss.since is not None
    length = milliseconds(miss.pinged_at) - milliseconds(miss.since)
    down = length * event.down_thousandths // 1000
    unknown = (length - down) * event.unknown_thousandths // 1000
    told = Durations(up=length - down - unknown, down=down, unknown=unknown)
    label = miss.pinged_at
    if kind == "clock-broken":
        label = miss.pinged_at + timedelta(hours=8)
        told = Durations(up=told.up * 101 // 100, down=told.down, unknown=told.unknown)
    present = {}
    measured = Interval(milliseconds(miss.since), milliseconds(miss.pinged_at))
    for uuid, (interval,) in expected.items():
        if interval.overlaps(measured) and milliseconds(miss.pinged_at) < interval.end:
            present[uuid] = told
    window = MeasuredWindow(
        since=measured.begin,
        until=measured.end,
        elapsed=length,
        expected=expected,
        # The scheduler stood still for a part of what the host does not know.
        stood_still=unknown // 3,
    )
    reported = ReportedTime(
        host=told,
        gpus=present,
        states=dict.fromkeys(present, "up"),
        uptime_percent=told.uptime_percent,
    )
    admitted = admit(window, reported)
    if isinstance(admitted, Refused):
        return structs.replace(miss, reason=f"bad_report:{admitted.reason}", refused_report="{}")
    gpu_reports = []
    for uuid, row in present.items():
        gpu_reports.append(
            GpuReport(
                uuid=uuid,
                state="up",
                uptime_percent=row.uptime_percent,
                seconds=row.to_seconds(),
            )
        )
    down_since = label - timedelta(milliseconds=down)
    incidents = ()
    if down:
        incidents = (
            Incident(gpu=None, state="down", reason="lost", since=down_since, until=label),
        )
    report = UptimeReport(
        agent_id=agent_id,
        window=Window(
            since=label - timedelta(milliseconds=told.window),
            until=label,
            seconds=told.window / 1000,
        ),
        uptime_percent=told.uptime_percent,
        gpu_available=True,
        seconds=told.to_seconds(),
        gpus=tuple(gpu_reports),
        incidents=incidents,
    )
    uptime = admitted.host.uptime_percent
    is_same = set(admitted.gpus) == set(present)
    is_same = is_same and all(row == admitted.host for row in admitted.gpus.values())
    times = tuple(GpuTime(uuid, row.to_seconds()) for uuid, row in admitted.gpus.items())
    return structs.replace(
        miss,
        outcome="answered",
        verdict="good" if uptime is not None and uptime >= 99.0 else "poor",
        reason=None,
        uptime_percent=uptime,
        seconds=admitted.host.to_seconds(),
        window_seconds=admitted.host.window / 1000,
        gpus=() if is_same else times,
        remarks=tuple(sorted(admitted.remarks)),
        response_ms=3.0,
        report=Raw(encode(report)),
    )
