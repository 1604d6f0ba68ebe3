"""The short road of healthy messages gives the rows of the long one; what is no outcome takes neither."""

from datetime import timedelta

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import structs

from bus.messages import AgentState, Incident, Outcome, Seconds, encode
from storage import rows, states
from storage.rows import Arrival, Entry, Poisoned, read
from tests.storage_states import START, gpu, state

times = st.one_of(st.just(0.0), st.floats(0, 1e6, allow_subnormal=False))
latencies = st.one_of(st.none(), st.floats(-1e3, 1e6))
accounts = st.one_of(
    st.builds(Seconds, up=times),
    st.builds(Seconds, up=times, degraded=times, down=times, unknown=times, excused=times),
)


@st.composite
def scheduler_states(draw: st.DrawFn) -> AgentState:
    """From wholly healthy to odd in one or more ways."""
    seconds = draw(accounts)
    odd = draw(st.sets(st.sampled_from(["gpu", "gpus", "percent", "window", "poor", "reason", "incident", "none"])))
    gpus = (gpu(seconds), gpu(seconds, uuid="GPU-2", index=None, name=""))
    if "gpu" in odd:
        gpus = (gpus[0], gpu(draw(accounts), state=draw(st.sampled_from(["up", "degraded", "unknown"]))))
    about: dict[str, object] = {"response_ms": draw(latencies)}
    if "percent" in odd:
        about["uptime_percent"] = draw(st.one_of(st.none(), st.floats(0, 100)))
    if "window" in odd:
        about["window_seconds"] = draw(times)
    if "reason" in odd:
        about["reason"] = "bad_report"
    incident = Incident(gpu=None, state="up", reason="restarted", since=START)
    made = state(
        "a",
        draw(st.integers(1, 2**40)),
        START + timedelta(microseconds=draw(st.integers(-(10**15), 10**15))),
        None if "none" in odd else seconds,
        gpus=() if "gpus" in odd else gpus,
        incidents=(incident,) if "incident" in odd else (),
        **about,
    )
    return structs.replace(made, consecutive_poor=draw(st.integers(1, 9)) if "poor" in odd else 0)


def by_the_long_road(arrival: Arrival) -> Entry:
    return rows._entry(arrival, msgspec.json.decode(arrival.data, type=states.State))


@given(scheduler_states())
@example(state("a", 1, START))
def test_both_roads_give_the_same_rows(one: AgentState):
    arrival = Arrival(1, "a", encode(one))
    found = read(arrival)
    assert isinstance(found, Entry)
    healthy, found.healthy = found.healthy, False
    assert found == by_the_long_road(arrival)
    if healthy:  # the columns that `insert_healthy.sql` fills in by itself
        defaults = rows.PingRow(0, 1, 0, 0, 0.0)
        assert structs.astuple(found.ping)[11:] == structs.astuple(defaults)[11:]
        assert (found.gpus, found.incidents, found.evidence) == ((), (), None)


def test_the_short_road_is_taken():
    found = read(Arrival(1, "a", encode(state("a", 1, START))))
    assert isinstance(found, Entry)
    assert found.healthy
    signed = read(Arrival(1, "a", encode(state("a", 1, START)), signature="s"))
    assert isinstance(signed, Entry)
    assert not signed.healthy
    assert signed.evidence


def _with(outcome: dict[str, object]) -> bytes:
    made = msgspec.json.decode(encode(state("a", 1, START)))
    made["last"] |= outcome
    return msgspec.json.encode(made)


@pytest.mark.parametrize(
    ("outcome", "detail"),
    [
        ({"pinged_at": "2026-11-01T00:00:00"}, "timezone"),  # nobody knows when that was
        ({"ping_seq": 0}, ">= 1"),
        ({"response_ms": 1e30}, "<="),
        ({"window_seconds": 1e300}, "<="),
        ({"seconds": {"up": 1e300}, "window_seconds": 1.0}, "too long"),
        ({"late_ms": "soon"}, "late_ms"),
        ({"outcome": "lost"}, "outcome"),
    ],
)
def test_what_is_no_outcome_is_set_aside_with_the_reason(outcome: dict[str, object], detail: str):
    found = read(Arrival(1, "a", _with(outcome)))
    assert isinstance(found, Poisoned)
    assert detail in found.detail


def test_the_types_here_know_all_that_they_keep():
    """A field that messages carry and storage ought to keep is not overlooked by renaming it in one place only."""
    assert set(states.Outcome.__struct_fields__) <= set(Outcome.__struct_fields__)
    assert set(states.State.__struct_fields__) <= set(AgentState.__struct_fields__)
