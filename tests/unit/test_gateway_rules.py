"""The gateway's rules without a network: tokens, limits, paths, formats, event frames, badges."""

import asyncio
import tomllib
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.addresses import is_loopback
from bus.contract.messages import encode
from bus.contract.questions import LiveEvent
from bus.errors import BadMessageError, GpupingError, RefusedError, SettingsError, UnavailableError
from bus.identity import tokens
from bus.rate_limit import MAX_CALLERS, RateLimit
from gateway import broadcast
from gateway.public.badges import truncate_percent
from gateway.web.accept import preferred
from gateway.web.access import auth
from gateway.web.json_body import check_depth
from gateway.web.middleware import check_path
from gateway.web.problems import ProblemError, bad_request, problem_of
from tests.gateway_behind import agent

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
EVERYWHERE = "0.0.0.0"  # noqa: S104  # what is no loopback


def refused(action) -> int | None:
    """The status of the problem that an action raises, if it does."""
    try:
        action()
    except ProblemError as problem:
        return problem.status
    return None


# ---- tokens


def test_a_token_is_recognised_and_its_file_holds_only_a_hash(tmp_path):
    secret, entry = tokens.create("ops", "operator", NOW + timedelta(days=1))
    text = tokens.as_toml(entry)
    assert secret not in text
    (tmp_path / "t.toml").write_text(text)
    (read,) = tokens.load(tmp_path / "t.toml")
    assert read == entry
    assert tokens.verify(secret, [read], NOW) == entry
    assert tokens.verify(secret, [read], NOW + timedelta(days=1)) is None
    assert tokens.verify(secret[:-1], [read], NOW) is None
    assert tokens.verify(read.sha256, [read], NOW) is None  # the hash is not a secret


def test_every_secret_is_different():
    assert len({tokens.create("a", "viewer")[0] for _ in range(100)}) == 100


@pytest.mark.parametrize("name", ["", "a b", 'a"', "a\n[[token]]", "-a", "x" * 80])
def test_names_that_would_need_quoting_are_refused(name):
    with pytest.raises((SettingsError, ValueError)):
        tokens.create(name, "viewer")


def test_a_file_with_the_same_name_twice_or_a_time_without_zone_is_refused(tmp_path):
    path = tmp_path / "t.toml"
    path.write_text("\n".join(tokens.as_toml(tokens.create("a", "viewer")[1]) for _ in range(2)))
    with pytest.raises(SettingsError, match="twice"):
        tokens.load(path)
    path.write_text(tokens.as_toml(tokens.create("a", "viewer", NOW)[1]).replace("Z\n", "\n"))
    with pytest.raises(SettingsError, match="time zone"):
        tokens.load(path)
    assert tomllib.loads(path.read_text())["token"][0]["name"] == "a"


# ---- limits


@given(st.lists(st.floats(min_value=0.0, max_value=0.5), max_size=300))
def test_no_caller_gets_more_than_burst_and_rate_allow(pauses):
    limit, clock, passed = RateLimit(10.0, 20.0), 0.0, 0
    for pause in pauses:
        clock += pause
        passed += limit.take("a", clock) == 0.0
    assert passed <= 20 + 10 * clock + 1e-6


def test_a_request_after_the_returned_wait_passes():
    limit = RateLimit(10.0, 1.0)
    assert limit.take("a", 0.0) == 0.0
    wait = limit.take("a", 0.0)
    assert wait == pytest.approx(0.1)
    assert limit.take("b", 0.0) == 0.0
    assert limit.take("a", wait + 1e-9) == 0.0


def test_the_callers_seen_longest_ago_are_forgotten():
    limit = RateLimit(1.0, 1.0)
    for number in range(MAX_CALLERS + 100):
        limit.take(str(number), 0.0)
    assert len(limit._buckets) == MAX_CALLERS


# ---- who may do what


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST",
        "localhost.",
        "127.0.0.1",
        "127.9.9.9",
        "::1",
        "[::1]",
        "a.localhost",
    ],
)
def test_loopback(host):
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    ["", EVERYWHERE, "::", "10.0.0.1", "localhost.example", "127.0.0.1.example", "127.1", "[", "x"],
)
def test_not_loopback(host):
    assert not is_loopback(host)


@given(st.sampled_from(["GET", "POST", "DELETE", "PUT", "x"]), st.text(max_size=30))
def test_viewers_may_only_read(method, path):
    if auth.role_for(method, path) == "viewer":
        assert method == "GET" or path in auth._READING_POSTS


@given(st.text(), st.text())
def test_garbage_in_headers_is_not_a_token(authorization, cookie):
    secret = auth._bearer_secret({"authorization": authorization})
    assert secret is None or secret in authorization
    session_id = auth._session_id(cookie)
    assert session_id is None or session_id


@given(st.text(), st.text(), st.text())
def test_garbage_in_hosts_and_origins_is_a_403(host, origin, site):
    guard = auth.Guard(None, 1e9)
    headers = {"host": host, "origin": origin, "sec-fetch-site": site}
    with pytest.raises(ProblemError) as caught:
        guard.admit(
            auth.RequestHead(
                "DELETE", "/ping-system/agents/a", headers | {"sec-fetch-site": "cross-site"}, "c"
            )
        )
    assert caught.value.status == 403
    assert refused(
        lambda: guard.admit(auth.RequestHead("POST", "/ping-system/agents/a", headers, "c"))
    ) in {None, 403}


# ---- ids in paths


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/ping-system/agents",
        "/ping-system/agents/",
        "/ping-system/agents/register",
        "/ping-system/agents/due-for-ping",
        "/ping-system/agents/a-1_B/history",
        "/other/a.b",
    ],
)
def test_valid_paths(path):
    check_path(path)


@pytest.mark.parametrize(
    "last", ["a.b", "a%2Fb", "%", "%zz", "register/ping", "due-for-ping/", "a%0a", "%ff"]
)
def test_invalid_paths(last):
    with pytest.raises(ProblemError):
        check_path(f"/ping-system/agents/{last}")


@given(st.text(max_size=80))
def test_any_path_passes_or_is_a_400(path):
    assert refused(lambda: check_path(f"/ping-system/agents/{path}")) in {None, 400}


# ---- formats


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", "json"),
        ("*/*", "json"),
        ("text/csv", "csv"),
        ("TEXT/CSV; charset=utf-8", "csv"),
        ("application/json, text/csv", "json"),
        ("text/csv;q=0.9, application/json;q=0.1", "csv"),
        ("text/csv;q=0", "json"),
        ("text/csv;q=x", "json"),
        ("application/vnd.apache.parquet", "parquet"),
        ("image/png", "json"),
        (",;,;q=", "json"),
    ],
)
def test_the_format_that_accept_prefers(accept, chosen):
    assert preferred(accept) == chosen


@given(st.text())
def test_any_accept_header_has_a_format(accept):
    assert preferred(accept) in {"json", "csv", "parquet"}


def test_bodies_that_nest_too_deep_are_refused():
    deep: object = 1
    for _ in range(32):
        deep = {"a": [deep]}
    check_depth({"a": [{"b": 1}] * 100})
    with pytest.raises(ProblemError):
        check_depth(deep)


@pytest.mark.parametrize(
    ("percent", "shown"),
    [(100.0, "100"), (99.999, "99.99"), (0.0, "0"), (99.5, "99.5"), (0.004, "0")],
)
def test_a_percentage_is_never_rounded_up(percent, shown):
    assert truncate_percent(percent) == shown


# ---- errors


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (BadMessageError("x"), 400),
        (UnavailableError("x"), 503),
        (RefusedError(404, "x"), 404),
        (RefusedError(409, "x"), 409),
        (RefusedError(99, "x"), 500),
        (RefusedError(200, "x"), 500),
        (GpupingError("x"), 500),
        (ZeroDivisionError("secret"), 500),
    ],
)
def test_errors_become_problems(error, status):
    problem = problem_of(error)
    assert problem.status == status
    assert "secret" not in str(problem.document())
    assert ("Retry-After" in problem.headers) is (status == 503)


def test_a_place_in_a_body_is_a_json_pointer():
    def pointer(path: str) -> str:
        (field,) = bad_request(f"Expected `str` - at `{path}`").errors
        return field.pointer

    assert pointer("$.agent_id") == "#/agent_id"
    assert pointer("$.capabilities[12]") == "#/capabilities/12"
    assert pointer("$.metadata[...]") == "#/metadata"
    assert pointer("$") == "#"


# ---- live frames


def happening(number: int) -> bytes:
    return encode(LiveEvent(kind="ping", agent_id=f"a{number}", at=NOW))


@given(st.integers(1, 40), st.integers(0, 40))
def test_the_frames_after_an_id_are_replayed(total, seen):
    events = broadcast.EventBroadcast()
    for number in range(1, total + 1):
        events.receive(happening(number))
    text = asyncio.run(events.subscribe("a", f"{events.epoch}-{seen}").next(0.0)).decode()
    if seen > total:
        assert "event: reset" in text
    else:
        assert [f"id: {events.epoch}-{n}\n" in text for n in range(1, total + 1)] == [
            n > seen for n in range(1, total + 1)
        ]


async def test_an_id_that_is_no_longer_kept_gets_a_reset():
    events = broadcast.EventBroadcast()
    for number in range(broadcast.HISTORY_FRAMES + 10):
        events.receive(happening(number))
    assert b"event: reset" in await events.subscribe("a", f"{events.epoch}-5").next(0.0)
    assert b"event: reset" not in await events.subscribe(
        "a", f"{events.epoch}-{broadcast.HISTORY_FRAMES}"
    ).next(0.0)


async def test_more_missed_frames_than_fit_the_queue_get_a_reset():
    events = broadcast.EventBroadcast()
    for number in range(broadcast.MAX_QUEUED_FRAMES + 500):
        events.receive(happening(number))
    assert b"event: reset" in await events.subscribe("a", f"{events.epoch}-1").next(0.0)


async def test_a_full_queue_drops_its_subscriber_and_no_other():
    events = broadcast.EventBroadcast()
    slow, quick = events.subscribe("a"), events.subscribe("a")
    for number in range(broadcast.MAX_QUEUED_FRAMES + 1):
        events.receive(happening(number))
        assert await quick.next(0.0)
    assert slow.dropped.is_set()
    assert not quick.dropped.is_set()


def large_event(number: int) -> bytes:
    """An event of 0.9 MB: nearly the largest message of the bus."""
    large = agent(f"a{number}", metadata={"text": "x" * 900_000})
    return encode(LiveEvent(kind="registered", agent_id=f"a{number}", at=NOW, agent=large))


async def test_large_events_are_kept_up_to_a_number_of_bytes():
    events = broadcast.EventBroadcast()
    for number in range(1, 151):
        events.receive(large_event(number))
    kept = sum(len(frame.data) for frame in events._history)
    assert 0 < kept <= broadcast.HISTORY_BYTES
    assert b"event: reset" in await events.subscribe("a", f"{events.epoch}-1").next(0.0)
    replayed = await events.subscribe("a", f"{events.epoch}-145").next(0.0)
    assert [f"id: {events.epoch}-{n}\n".encode() in replayed for n in range(145, 151)] == [
        n > 145 for n in range(145, 151)
    ]


async def test_a_queue_is_limited_in_bytes():
    events = broadcast.EventBroadcast()
    slow = events.subscribe("a")
    quick = events.subscribe("a")
    for number in range(150):
        events.receive(large_event(number))
        assert await quick.next(0.0)
    assert slow.dropped.is_set()
    assert not quick.dropped.is_set()


async def test_the_number_of_subscribers_is_limited():
    events = broadcast.EventBroadcast()
    subscribers = [
        events.subscribe(f"caller {number}") for number in range(broadcast.MAX_SUBSCRIBERS)
    ]
    with pytest.raises(ProblemError) as caught:
        events.subscribe("another")
    assert caught.value.status == 503
    events.unsubscribe(subscribers[0])
    events.subscribe("another")


@given(st.binary(max_size=200))
def test_garbage_is_not_broadcast(data):
    events = broadcast.EventBroadcast()
    events.receive(data)
    assert not events._history
