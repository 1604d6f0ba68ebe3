"""The scenario vocabulary of docs/guide.md, and the player that speaks it."""

import time

import pytest

from agentd import scenario
from agentd.health.rules import DEFAULT_XIDS
from agentd.probe_selection import open_probe
from agentd.scenario import ScenarioProbe, parse
from bus import settings
from bus.clock import boottime
from bus.errors import SettingsError

FLAPPING = """
gpus = 2
[[event]]
at = 8.0
gpu = 0
state = "lost"
for = 6.0
every = 20.0
"""


def at(text, elapsed, agent_id="agent-001", table=None):
    """A player whose scenario has been running for `elapsed` seconds."""
    return ScenarioProbe(parse(text), agent_id, table or DEFAULT_XIDS, boottime() - elapsed)


async def states(text, elapsed):
    sample = await at(text, elapsed).check(())
    return [(gpu.index, gpu.state, gpu.reasons) for gpu in sample.gpus]


def one(state):
    return f'gpus = 1\n[[event]]\nat = 1\ngpu = 0\nstate = "{state}"\n'


def test_flapping_is_the_file_of_the_contract():
    assert scenario.load("flapping") == parse(FLAPPING)


def test_the_built_in_scenarios():
    names = {
        "flapping",
        "healthy",
        "dying",
        "hung",
        "lost-and-back",
        "thermal",
        "eight-gpus-one-bad",
    }
    assert set(scenario.names()) == names
    assert all(scenario.load(name).gpus for name in names)


@pytest.mark.parametrize(
    ("elapsed", "state"),
    [(7.9, "ok"), (8, "lost"), (13.9, "lost"), (14, "ok"), (28.1, "lost"), (34.1, "ok")],
)
def test_at_for_and_every(elapsed, state):
    assert parse(FLAPPING).state(0, elapsed)[0] == state
    assert parse(FLAPPING).state(1, elapsed)[0] == "ok"


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("ok", ("up", ())),
        ("lost", ("down", ("lost",))),
        ("hang", ("down", ("hung",))),
        ("ecc", ("down", ("ecc",))),
        ("xid:79", ("down", ("xid:79",))),
        ("xid:74", ("degraded", ("xid:74",))),
        ("xid:31", ("up", ())),
        ("xid:8", ("up", ())),
        ("remap-pending", ("degraded", ("remap-pending",))),
        ("remap-failed", ("down", ("remap-failed",))),
        ("thermal", ("degraded", ("thermal",))),
        ("not-supported", ("up", ())),
    ],
)
async def test_every_word_of_the_vocabulary(word, expected):
    assert await states(one(word), 0.5) == [(0, "up", ())]
    assert await states(one(word), 2.0) == [(0, *expected)]


async def test_a_missing_gpu_is_not_in_the_sample():
    assert await states('gpus = 2\n[[event]]\nat = 0\ngpu = 0\nstate = "missing"\n', 1.0) == [
        (1, "up", ())
    ]


async def test_all_means_all():
    assert {
        s
        for _, s, _ in await states('gpus = 3\n[[event]]\nat = 0\ngpu = "all"\nstate = "lost"\n', 1)
    } == {"down"}


def test_of_two_events_the_one_that_began_last_holds():
    both = one("ecc") + '[[event]]\nat = 3\ngpu = 0\nstate = "ok"\n'
    assert [parse(both).state(0, t)[0] for t in (2, 4)] == ["ecc", "ok"]


async def test_an_xid_without_effect_is_told_once():
    player = at(one("xid:8"), 2.0)
    told = [await player.check(()) for _ in range(3)]
    assert [[event.reason for event in sample.events] for sample in told] == [["xid:8"], [], []]


async def test_uuids_are_the_same_at_every_start_and_differ_between_agents():
    first, again, other = [
        await at(FLAPPING, 0, who).check(()) for who in ("sim-001", "sim-001", "sim-002")
    ]
    assert [gpu.uuid for gpu in first.gpus] == [gpu.uuid for gpu in again.gpus]
    assert len({gpu.uuid for sample in (first, other) for gpu in sample.gpus}) == 4


async def test_details_say_that_it_is_simulated_and_invent_nothing():
    (details,) = await at(one("ok"), 0).details()
    assert (details["simulated"], details["name"], details["temperature_celsius"]) == (
        True,
        "Simulated GPU",
        None,
    )


def test_gpus_may_be_none_at_all():
    assert parse("gpus = 0").gpus == 0


def test_a_scenario_is_chosen_by_option_or_setting(tmp_path):
    mine = tmp_path / "mine.toml"
    mine.write_text("gpus = 5\n")
    given = settings.load({}, AGENT_SCENARIO=str(mine))
    assert open_probe(given, "a").simulated
    assert len(open_probe(given, "a", "eight-gpus-one-bad")._uuids) == 8


def test_without_a_scenario_it_is_the_real_library(tmp_path):
    assert not open_probe(settings.load({}, AGENT_STATE_DIR=str(tmp_path)), "a").simulated


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            "gpus = 2\n[[event]]\nat = 1\ngpu = 2\nstate = 'lost'",
            "event 1: gpu = 2: expected below 2",
        ),
        ("[[event]]\nat = 1\ngpu = 0\nstate = 'melted'", "$.event[0].state"),
        ("[[event]]\nat = -1\ngpu = 0\nstate = 'lost'", "$.event[0].at"),
        ("[[event]]\nat = 1\ngpu = 0\nstate = 'lost'\nevery = 0", "$.event[0].every"),
        ("[[event]]\nat = 1\ngpu = 'some'\nstate = 'lost'", "$.event[0].gpu"),
        ("[[event]]\nat = nan\ngpu = 0\nstate = 'lost'", "$.event[0].at"),
        ("gpus = 'two'", "$.gpus"),
        ("cpus = 2", "cpus"),
        ("gpus =", "Invalid value"),
        (None, "flapping"),
    ],
)
def test_a_bad_scenario_is_refused_in_one_line(tmp_path, content, said):
    file = tmp_path / "bad.toml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(SettingsError) as refusal:
        open_probe(settings.load({}), "a", str(file))
    assert str(refusal.value).startswith(f"AGENT_SCENARIO={str(file)!r}: ")
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)


async def test_a_hundred_players_cost_next_to_nothing():
    players = [at(FLAPPING, 0, f"sim-{number:03}") for number in range(100)]
    begun = time.process_time()
    for player in players:
        await player.check(())
    assert time.process_time() - begun < 0.1
