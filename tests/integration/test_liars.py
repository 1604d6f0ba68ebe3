"""Hosts that lie to a real scheduler over a real bus, in every way that we could think of.

Each agent's first answer is honest and enrols two GPUs. From then on it lies. Whatever it says, no
more time is good than passed since its enrolment, and no more than "up" to every ping would have
brought; what is refused is kept, and the ping counts as missed. A lie is proven only where it was
received and judged: the tests wait for JUDGED such answers of each.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest
from msgspec.structs import astuple, replace

from bus.client.fleet_client import FleetClient
from bus.clock import boottime
from bus.contract import subjects
from bus.contract.durations import Durations, Interval
from bus.contract.maintenance import BookRequest
from bus.contract.messages import AgentEntry, AgentState, PingRequest, Seconds, decode, encode
from bus.contract.questions import RegisterReply, RegisterRequest
from bus.contract.remarks import STOOD_STILL, TWO_UNDER_ONE_ID
from bus.settings import Settings
from bus.transport import connection, micro_services
from bus.transport.bucket import read
from scheduler.ping.accounting.timestamps import milliseconds
from scheduler.ping.pinger import REPORT_LIMIT_BYTES
from scheduler.service import running
from tests.agents import AnswerPing, answering, report
from tests.history import until_history

CALENDAR = datetime(1970, 1, 1, tzinfo=UTC)
TEN_YEARS = 315_360_000.0
PINGS = 5  # of a host that does not lie
JUDGED = 3  # lies of each host that were received and judged
Said = dict[str, Any]


class Told(NamedTuple):
    """What a lie may use: the request, an honest report on it, and what the host said before."""

    request: PingRequest
    said: Said
    before: list[bytes]

    @property
    def length(self) -> float:
        return float(self.said["window"]["seconds"])


class Lie(NamedTuple):
    """`tell` makes the answer.

    `reason`: it is refused for that reason, and kept. `remark`: it is refused or admitted, and that
    is said of it. Without either it is admitted as it is, because it brings nothing.
    """

    tell: Callable[[Told], bytes | None]
    reason: str | None = None
    remark: str | None = None


def seconds(**changes: float) -> Said:
    return dict.fromkeys(("up", "degraded", "down", "unknown", "excused"), 0.0) | changes


def saying(told: Told, host: Said, *gpus: Said, **changes: Any) -> bytes:
    """The report with these seconds of the host and of its GPUs, and a percent that fits."""
    said = dict(told.said)
    length = sum(host.values())
    good = host["up"] + host["degraded"]
    judged = good + host["down"] + host["unknown"]
    said["seconds"] = host
    said["window"] = said["window"] | {"seconds": length}
    # In floating point, 100 times a number and divided by it may be a little above 100.
    said["uptime_percent"] = min(100.0, 100.0 * good / judged) if judged else None
    rows = gpus or (host, host)
    named = zip(told.said["gpus"], rows, strict=False)
    said["gpus"] = [gpu | {"seconds": row} for gpu, row in named]
    return json.dumps(said | changes).encode()


def up_for(times: float, **more: float) -> Callable[[Told], bytes]:
    """Up for so many times what passed, and more time besides."""
    return lambda told: saying(told, seconds(up=told.length * times, **more))


def with_fields(**changes: Any) -> Callable[[Told], bytes]:
    return lambda told: json.dumps(told.said | changes).encode()


def raw(data: bytes) -> Callable[[Told], bytes]:
    return lambda _told: data


def written_as(text: str) -> Callable[[Told], bytes]:
    """The seconds up are this text, which need not be a number of JSON."""
    mark = 123456.75

    def tell(told: Told) -> bytes:
        data = saying(told, seconds(up=mark), uptime_percent=100.0)
        return data.replace(str(mark).encode(), text.encode())

    return tell


def all_down_and_percent(percent: float | None) -> Callable[[Told], bytes]:
    return lambda told: saying(told, seconds(down=told.length), uptime_percent=percent)


def half(name: str) -> Callable[[Told], bytes]:
    return lambda told: saying(told, seconds(up=told.length / 2, **{name: told.length / 2}))


def only_the_first_gpu(told: Told) -> bytes:
    return json.dumps(told.said | {"gpus": told.said["gpus"][:1]}).encode()


def another_gpu(told: Told) -> bytes:
    first, second = told.said["gpus"]
    return json.dumps(told.said | {"gpus": [first, second | {"uuid": "GPU-borrowed"}]}).encode()


def one_gpu_twice(told: Told) -> bytes:
    first, _second = told.said["gpus"]
    return json.dumps(told.said | {"gpus": [first, first]}).encode()


def up_over_a_dead_gpu(told: Told) -> bytes:
    up = seconds(up=told.length)
    return saying(told, up, up, seconds(down=told.length))


def gpus_of_other_lengths(told: Told) -> bytes:
    return saying(told, seconds(up=told.length), seconds(up=0.001), seconds(up=told.length))


def the_answer_before(told: Told) -> bytes:
    return told.before[0]


def the_answer_before_with_this_ping(told: Told) -> bytes:
    said = json.loads(told.before[0])
    return json.dumps(said | {key: told.said[key] for key in ("ping_id", "nonce")}).encode()


def before_the_enrolment(told: Told) -> bytes:
    since = datetime.now(UTC) - timedelta(days=365)
    window = told.said["window"] | {"since": since.isoformat(), "seconds": 31_536_000.0}
    return saying(told, seconds(up=31_536_000.0), window=window)


def in_turn(told: Told) -> bytes:
    """Two hosts under one id answer in turn; the first of them is the honest one."""
    if len(told.before) % 2 == 0:
        return json.dumps(told.said).encode()
    twin = {"boot_id": "boot-of-the-twin", "session_id": "session-of-the-twin"}
    return json.dumps(told.said | twin).encode()


def with_mark(mark: str, **changes: float) -> Callable[[Told], bytes]:
    def tell(told: Told) -> bytes:
        window = told.said["window"] | {"mark": mark}
        return json.dumps(told.said | {"window": window} | changes).encode()

    return tell


def padded(told: Told) -> bytes:
    return json.dumps(told.said | {"agent_version": "x" * REPORT_LIMIT_BYTES}).encode()


def the_second_gpu_is_called(change: Callable[[str], str]) -> Callable[[Told], bytes]:
    def tell(told: Told) -> bytes:
        first, second = told.said["gpus"]
        renamed = second | {"uuid": change(second["uuid"])}
        return json.dumps(told.said | {"gpus": [first, renamed]}).encode()

    return tell


def one_gpu_down_and_then_up(told: Told) -> bytes:
    """Two rows of one GPU: of all that it says the last one counts."""
    first, second = told.said["gpus"]
    down = first | {"state": "down", "seconds": seconds(down=told.length)}
    return json.dumps(told.said | {"gpus": [down, first, second]}).encode()


def seconds_said_twice(told: Told) -> bytes:
    """A reader that keeps the first of two fields of one name would see a good host."""
    down = json.loads(saying(told, seconds(down=told.length)))
    return b'{"seconds": {"up": 999.0}, ' + json.dumps(down).encode()[1:]


def a_thousand_more_gpus(told: Told) -> bytes:
    more = [{"uuid": f"GPU-{number}", "seconds": {"up": 1.0}} for number in range(1_000)]
    return json.dumps(told.said | {"gpus": [*told.said["gpus"], *more]}).encode()


def another_boot_each_time(told: Told) -> bytes:
    number = len(told.before)
    label = datetime.now(UTC) - timedelta(days=number)
    window = told.said["window"] | {"since": label.isoformat(), "until": label.isoformat()}
    boots = {"boot_id": f"boot-{number}", "session_id": f"session-{number}"}
    return json.dumps(told.said | boots | {"window": window}).encode()


def down_with_an_incident_of_another_month(told: Told) -> bytes:
    since = datetime.now(UTC) - timedelta(days=40)
    incident = {"state": "down", "reason": "lost", "since": since.isoformat(), "gpu": None}
    return saying(told, seconds(down=told.length), incidents=[incident] * 20)


def all_down_by_a_hundredth_of_a_percent(told: Told) -> bytes:
    return saying(told, seconds(down=told.length), uptime_percent=0.0099)


REFUSED = "more_time_than_passed"
CONTRADICTS = "percent_contradicts_seconds"
BAD = "bad_report"
OF_ANOTHER_PING = "ping_wrong"
LIES = {
    "always-up": Lie(up_for(1.0)),
    "ten-years-of-up": Lie(lambda told: saying(told, seconds(up=TEN_YEARS)), REFUSED),
    "ten-years-of-down": Lie(lambda told: saying(told, seconds(down=TEN_YEARS)), REFUSED),
    "up-then-unknown-for-ten-years": Lie(up_for(0.9, unknown=TEN_YEARS), remark="time_cut"),
    "a-hundred-times-the-time": Lie(up_for(100.0), REFUSED),
    "a-little-longer": Lie(up_for(1.03)),
    "a-millisecond-of-up": Lie(lambda told: saying(told, seconds(up=0.001))),
    "nothing": Lie(lambda told: saying(told, seconds())),
    "all-excused": Lie(lambda told: saying(told, seconds(excused=told.length))),
    "down-called-excused": Lie(half("excused")),
    "ten-years-excused": Lie(up_for(1.0, excused=TEN_YEARS)),
    "all-down-and-100-percent": Lie(all_down_and_percent(100.0), CONTRADICTS),
    "all-down-and-no-percent": Lie(all_down_and_percent(None), CONTRADICTS),
    "all-down-and-101-percent": Lie(all_down_and_percent(101.0), BAD),
    "a-gpu-left-out": Lie(only_the_first_gpu, None, "unreported"),
    "no-gpu-at-all": Lie(with_fields(gpus=[]), None, "unreported"),
    "another-gpu": Lie(another_gpu, None, "unreported"),
    "one-gpu-twice": Lie(one_gpu_twice, None, "unreported"),
    "up-over-a-dead-gpu": Lie(up_over_a_dead_gpu, None, "gpus_contradict_host"),
    "gpus-of-other-lengths": Lie(gpus_of_other_lengths, None, "gpus_contradict_host"),
    "the-answer-before": Lie(the_answer_before, BAD, OF_ANOTHER_PING),
    "the-answer-before-with-this-ping": Lie(the_answer_before_with_this_ping),
    "of-another-agent": Lie(with_fields(agent_id="always-up"), BAD, OF_ANOTHER_PING),
    "before-the-enrolment": Lie(before_the_enrolment, REFUSED),
    "alternating-twins": Lie(in_turn, remark=TWO_UNDER_ONE_ID),
    "a-mark-of-the-future": Lie(with_mark("ledger.999999999999999")),
    "a-mark-that-is-none": Lie(with_mark("\u202e" * 500)),
    "a-wrong-nonce": Lie(with_fields(nonce="0" * 32), BAD, OF_ANOTHER_PING),
    "no-nonce": Lie(with_fields(nonce=None), BAD, OF_ANOTHER_PING),
    "no-ping-id": Lie(with_fields(ping_id=None), BAD, OF_ANOTHER_PING),
    "another-ping-id": Lie(with_fields(ping_id="ping-1"), BAD, OF_ANOTHER_PING),
    "garbage": Lie(raw(b"\xff\xfe{ garbage"), BAD),
    "an-empty-answer": Lie(raw(b""), BAD),
    "a-list": Lie(raw(b"[" * 10_000), BAD),
    "not-a-number": Lie(written_as("NaN"), BAD),
    "infinity": Lie(written_as("Infinity"), BAD),
    "a-number-without-end": Lie(written_as("1e999"), BAD),
    "a-huge-number": Lie(written_as("1e308"), BAD),
    "a-negative-number": Lie(written_as("-5.0"), BAD),
    "a-number-of-a-thousand-digits": Lie(written_as("9" * 1000), BAD),
    "more-than-64-kB": Lie(padded, BAD),
    "minus-zero": Lie(written_as("-0.0"), CONTRADICTS),
    "a-text": Lie(written_as('"5.0"'), BAD),
    "true": Lie(written_as("true"), BAD),
    "null": Lie(written_as("null"), BAD),
    "an-exponent": Lie(written_as("9e8"), REFUSED),
    "seconds-that-are-none": Lie(with_fields(seconds=None), BAD),
    "gpus-as-an-object": Lie(with_fields(gpus={"GPU": "up"}), BAD),
    "seconds-said-twice": Lie(seconds_said_twice),
    "a-gpu-in-capitals": Lie(the_second_gpu_is_called(str.upper), None, "unreported"),
    "a-gpu-with-a-space": Lie(
        the_second_gpu_is_called(lambda uuid: uuid + " "), None, "unreported"
    ),
    "a-gpu-without-a-name": Lie(the_second_gpu_is_called(lambda _: ""), None, "unreported"),
    "one-gpu-down-and-then-up": Lie(one_gpu_down_and_then_up),
    "a-thousand-more-gpus": Lie(a_thousand_more_gpus),
    "another-boot-each-time": Lie(another_boot_each_time),
    "an-incident-of-another-month": Lie(down_with_an_incident_of_another_month),
    "a-hundredth-of-a-percent": Lie(all_down_by_a_hundredth_of_a_percent),
}


@pytest.fixture
def config(base_settings: Settings) -> Settings:
    """Every agent is pinged each 1.2 s, whatever it says, and has 2.5 s to answer."""
    return replace(
        base_settings,
        PING_BASE_INTERVAL_MINUTES=0.02,
        PING_MAX_INTERVAL_HOURS=1.2 / 3600,
        PING_RESPONSE_TIMEOUT_SECONDS=2.5,
    )


def liar(lie: Lie, sent: list[bytes]) -> AnswerPing:
    """Answers honestly once, and lies from then on. What it sent is added to `sent`."""

    def answer(agent_id: str, request: PingRequest) -> bytes | None:
        honest = encode(report(agent_id, request, gpus=2))
        data: bytes | None = honest
        if sent:
            data = lie.tell(Told(request, json.loads(honest), sent))
        if data is not None:
            sent.append(data)
        return data

    return answer


def judged_lies(lie: Lie, states: list[AgentState]) -> list[AgentState]:
    """Returns the outcomes of lies that were received and judged.

    On a machine that is too slow some are not: the scheduler excuses its own stalls, an answer may
    come after the time-out, or after the ping was begun anew with another nonce.
    """
    judged = []
    for state in states[1:]:
        last = state.last
        is_stale = OF_ANOTHER_PING in last.remarks and lie.remark != OF_ANOTHER_PING
        was_received = last.outcome == "answered" or last.refused_report is not None
        if was_received and not is_stale:
            judged.append(state)
    return judged


def is_proven(lie: Lie, states: list[AgentState]) -> bool:
    """Returns whether enough lies were judged, and what is to be said of them was said."""
    judged = judged_lies(lie, states)
    if len(judged) < JUDGED:
        return False
    return lie.remark is None or lie.remark in judged[-1].last.remarks


async def register(bus: connection.Client, agent_id: str) -> None:
    await micro_services.ask(
        bus, subjects.register(agent_id), RegisterRequest(), RegisterReply, who="scheduler"
    )


def milliseconds_of(told: Seconds) -> Durations:
    return Durations(*(round(value * 1000) for value in astuple(told)))


def admitted(states: list[AgentState], enrolled_at: datetime) -> int:
    """The good milliseconds that were admitted. The windows tile the time since the enrolment."""
    good = 0
    until = milliseconds(enrolled_at)
    for state in states:
        last = state.last
        if last.outcome != "answered":
            assert last.seconds is None
            continue
        assert last.since is not None
        assert last.seconds is not None
        row = milliseconds_of(last.seconds)
        assert milliseconds(last.since) == until
        until = milliseconds(last.pinged_at)
        assert row.window == until - milliseconds(last.since)
        # Nothing was booked; a machine that stood still excuses what the host did not know.
        assert row.excused == 0 or STOOD_STILL in last.remarks
        for gpu in last.gpus:
            assert row.good <= milliseconds_of(gpu.seconds).good
        assert 0 <= row.good <= row.window
        good += row.good
    return good


async def test_no_lie_earns_more_than_what_passed_and_what_is_refused_is_kept(bus, config):
    sent: dict[str, list[bytes]] = {name: [] for name in LIES}
    began = boottime()
    async with running(config), answering(config) as agents:
        for name, lie in LIES.items():
            await agents.add(name, liar(lie, sent[name]))
        for name in LIES:
            await register(bus, name)
        history = await until_history(
            bus,
            lambda found: all(is_proven(lie, found[name]) for name, lie in LIES.items()),
            within=90.0,
        )
    passed_ms = (boottime() - began) * 1000
    for name, lie in LIES.items():
        states = history[name]
        entry = await read(bus, subjects.agent_key(name), AgentEntry)
        assert entry
        good = admitted(states, entry.value.enrolled_at)
        whole = milliseconds(states[-1].last.pinged_at) - milliseconds(entry.value.enrolled_at)
        assert good <= whole <= passed_ms, name
        for state in judged_lies(lie, states):
            check_lie(name, lie, state, sent[name])


def check_lie(name: str, lie: Lie, state: AgentState, sent: list[bytes]) -> None:
    """What becomes of one lie: refused and kept, or admitted with what was wrong about it."""
    last = state.last
    if lie.reason is not None:
        assert (last.outcome, last.reason) == ("missed", lie.reason), name
        assert last.refused_report is not None, name
        kept = last.refused_report
        assert kept.startswith("base64:") or kept.encode() in {d[:REPORT_LIMIT_BYTES] for d in sent}
        assert state.mark_refused, name
    else:
        assert last.outcome == "answered", (name, last.reason)
        assert bytes(last.report) in sent, name
    # Two under one id are recognised when the first of them answers again.
    if lie.remark not in {None, TWO_UNDER_ONE_ID}:
        assert lie.remark in last.remarks, (name, last.remarks)


# ---- in booked maintenance -----------------------------------------------------------------------


def is_in_maintenance(request: PingRequest) -> bool:
    """Returns whether the ping was sent within a booking that it carries."""
    for span in request.excused:
        assert span.since_seconds_ago is not None
        assert span.until_seconds_ago is not None
        if span.until_seconds_ago < 0 <= span.since_seconds_ago:
            return True
    return False


def down_in_it_and_up_after(told: Told) -> bytes:
    """Down while nobody judges it; then up, for the booked time, too."""
    if is_in_maintenance(told.request):
        return saying(told, seconds(down=told.length))
    return saying(told, seconds(up=told.length))


def silent_in_it_and_up_after(told: Told) -> bytes | None:
    if is_in_maintenance(told.request):
        return None
    return saying(told, seconds(up=told.length))


def twice_what_was_booked(told: Told) -> bytes:
    """More excused than the ping carried, and no word of the rest."""
    return saying(told, seconds(up=told.length / 4, excused=told.length * 3 / 4))


MAINTENANCE_LIES: dict[str, Callable[[Told], bytes | None]] = {
    "up-in-the-booked-time-too": up_for(1.0),
    "all-excused-in-maintenance": lambda told: saying(told, seconds(excused=told.length)),
    "ten-years-excused-in-maintenance": up_for(1.0, excused=TEN_YEARS),
    "more-excused-than-booked": twice_what_was_booked,
    "down-in-maintenance-and-up-after": down_in_it_and_up_after,
    "silent-in-maintenance-and-up-after": silent_in_it_and_up_after,
    "down-called-excused-after-maintenance": half("excused"),
}


def booked_ms(state: AgentState, booked: Interval) -> int:
    """How much of an outcome's window was booked, in milliseconds."""
    last = state.last
    assert last.since is not None
    window = Interval(milliseconds(last.since), milliseconds(last.pinged_at))
    return window.intersection(booked).length


async def test_no_lie_about_booked_maintenance_excuses_or_earns_more_than_was_booked(bus, config):
    """The excused time is what was booked, to the millisecond, and none of it is good."""
    sent: dict[str, list[bytes]] = {name: [] for name in MAINTENANCE_LIES}
    fleet = FleetClient(bus, config.PING_RESPONSE_TIMEOUT_SECONDS)
    async with running(config), answering(config) as agents:
        for name, tell in MAINTENANCE_LIES.items():
            await agents.add(name, liar(Lie(tell), sent[name]))
            await register(bus, name)
        await until_history(bus, lambda found: all(found[name] for name in MAINTENANCE_LIES))
        began = datetime.now(UTC) + timedelta(seconds=2.5)
        booked = Interval(milliseconds(began), milliseconds(began) + 2_500)
        for name in MAINTENANCE_LIES:
            await fleet.book_maintenance(
                BookRequest(
                    agent_id=name,
                    since=CALENDAR + timedelta(milliseconds=booked.begin),
                    until=CALENDAR + timedelta(milliseconds=booked.end),
                    reason="fans",
                    author="ada",
                )
            )
        history = await until_history(
            bus,
            lambda found: all(answered_after(found[name], booked.end) for name in MAINTENANCE_LIES),
            within=60.0,
        )
    for name in MAINTENANCE_LIES:
        excused_ms = 0
        pings_within = 0
        for state in history[name]:
            last = state.last
            if milliseconds(last.pinged_at) in booked:
                assert last.verdict == "excused", name
                pings_within += 1
            if last.seconds is None:
                continue
            row = milliseconds_of(last.seconds)
            booked_part = booked_ms(state, booked)
            if STOOD_STILL in last.remarks:  # this machine did, which excuses more
                assert row.excused >= booked_part, name
            else:
                assert row.excused == booked_part, name
            assert 0 <= row.good <= row.window - row.excused, name
            for gpu in last.gpus:
                assert row.good <= milliseconds_of(gpu.seconds).good, name
            excused_ms += booked_part
        assert excused_ms == booked.length, name
        assert pings_within > 0, name


def answered_after(states: list[AgentState], at_ms: int) -> int:
    """How many pings that were sent after a moment were answered, and their answers admitted."""
    answered = 0
    for state in states:
        if state.last.outcome == "answered" and milliseconds(state.last.pinged_at) > at_ms:
            answered += 1
    return answered


async def test_always_up_earns_all_that_passed(bus, config):
    """The measure of all lies: the most that a host can earn."""
    async with running(config), answering(config) as agents:
        await agents.add("honest")
        await register(bus, "honest")
        history = await until_history(bus, lambda found: len(found["honest"]) >= PINGS)
    entry = await read(bus, subjects.agent_key("honest"), AgentEntry)
    assert entry
    states = history["honest"]
    whole = milliseconds(states[-1].last.pinged_at) - milliseconds(entry.value.enrolled_at)
    assert admitted(states, entry.value.enrolled_at) == whole


async def test_one_bad_mark_does_not_refuse_for_ever(bus, config):
    """After a refusal the ping tells no mark, so that the host counts by our own length."""

    def answer(agent_id: str, request: PingRequest) -> bytes:
        told = report(agent_id, request, gpus=2)
        if request.since_mark is None:
            return encode(told)
        too_long = Seconds(up=TEN_YEARS)
        window = replace(told.window, seconds=TEN_YEARS)
        return encode(replace(told, seconds=too_long, window=window, uptime_percent=100.0))

    async with running(config), answering(config) as agents:
        await agents.add("broken-ledger", answer)
        await register(bus, "broken-ledger")
        history = await until_history(bus, lambda found: len(found["broken-ledger"]) >= PINGS)
    states = history["broken-ledger"]
    outcomes = [(state.last.outcome, state.last.reason) for state in states[1:PINGS]]
    assert outcomes == [("missed", REFUSED), ("answered", None)] * (PINGS // 2)
    entry = await read(bus, subjects.agent_key("broken-ledger"), AgentEntry)
    assert entry
    answered = [state for state in states if state.last.outcome == "answered"]
    whole = milliseconds(answered[-1].last.pinged_at) - milliseconds(entry.value.enrolled_at)
    assert admitted(states, entry.value.enrolled_at) == whole
    asked = [request.since_mark is None for request in agents.asked["broken-ledger"][:PINGS]]
    assert asked == [True, False, True, False, True]


async def test_a_second_answer_to_a_ping_changes_nothing(bus, config):
    """The first valid answer counts; a better one that comes after it does not."""
    async with running(config), connection.connected(config, "twice-teller") as client:

        async def reply(message: connection.Msg) -> None:
            request = decode(message.data, PingRequest)
            await message.respond(encode(report("twice", request, up=0.0, gpus=2)))
            await message.respond(encode(report("twice", request, up=1.0, gpus=2)))

        await client.subscribe(subjects.ping("twice"), cb=reply)
        await client.flush()
        await register(bus, "twice")
        history = await until_history(bus, lambda found: len(found["twice"]) >= 3)
    numbers = [state.ping_seq for state in history["twice"]]
    assert numbers == list(range(1, len(numbers) + 1))
    for state in history["twice"]:
        assert state.last.seconds
        assert state.last.seconds.up == 0.0
