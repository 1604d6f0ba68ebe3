"""Settings: the names and defaults of docs/operations.md, and one line for each bad value."""

import pytest

from bus import settings
from bus.errors import SettingsError


def refusal(**environ: str) -> str:
    with pytest.raises(SettingsError) as caught:
        settings.load(environ)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(next(iter(environ))), "the line begins with the setting's name"
    return text


def test_the_defaults_of_the_guide():
    loaded = settings.load({})
    assert loaded.PING_BASE_INTERVAL_MINUTES == 15
    assert loaded.PING_UPTIME_THRESHOLD == 99.0
    assert loaded.PING_ESCALATION_MULTIPLIER == 2.0
    assert loaded.PING_MAX_INTERVAL_HOURS == 24
    assert loaded.PING_RECOVERY_THRESHOLD_PINGS == 3
    assert loaded.PING_FIRST_PING_GRACE_PERIOD is True
    assert loaded.PING_RESPONSE_TIMEOUT_SECONDS == 10
    assert loaded.PING_MAX_CONCURRENT_AGENTS == 100
    assert loaded.AGENT_GPU_CHECK_INTERVAL_SECONDS == 5
    assert loaded.AGENT_MAX_HISTORY_SIZE == 10_000
    assert loaded.AGENT_CHECKPOINT_INTERVAL == 100


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("0.05", 0.05), (".05", 0.05), ("5.", 5.0), ("+5", 5.0), ("+0.5", 0.5), ("1e-2", 0.01)],
)
def test_numbers_may_be_fractions_however_they_are_spelt(text, minutes):
    assert minutes == settings.load({"PING_BASE_INTERVAL_MINUTES": text}).PING_BASE_INTERVAL_MINUTES


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("PING_ESCALATION_MULTIPLIER", "1"),
        ("PING_UPTIME_THRESHOLD", "0"),
        ("AGENT_MAX_HISTORY_SIZE", "1"),
    ],
)
def test_edges_that_are_legal(name, text):
    assert getattr(settings.load({name: text}), name) == float(text)
    assert settings.load({"PING_UPTIME_THRESHOLD": "100"}).PING_UPTIME_THRESHOLD == 100


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("PING_ESCALATION_MULTIPLIER", "0.99"),
        ("PING_UPTIME_THRESHOLD", "100.01"),
        ("PING_UPTIME_THRESHOLD", "-1"),
        ("PING_MAX_INTERVAL_HOURS", "0.2"),
        ("PING_BASE_INTERVAL_MINUTES", "nan"),
        ("PING_BASE_INTERVAL_MINUTES", "."),
        ("PING_RESPONSE_TIMEOUT_SECONDS", "0"),
        ("NATS_URL", "http://127.0.0.1:4222"),
        ("NATS_URL", "nats://a b"),
        ("AGENT_ID", "a.b"),
        ("AGENT_ID", "a" * 64),
    ],
)
def test_what_is_refused_says_what_was_expected(name, text):
    line = refusal(**{name: text})
    assert repr(text) in line or text in line
    assert "expected" in line


@pytest.mark.parametrize(
    "name",
    [
        "PING_RECOVERY_THRESHOLD_PINGS",
        "PING_MAX_CONCURRENT_AGENTS",
        "AGENT_CHECKPOINT_INTERVAL",
        "NATS_PORT",
    ],
)
def test_counts_are_whole_numbers(name):
    assert refusal(**{name: "2.5"}).endswith("expected a whole number")
    assert refusal(**{name: ".5"}).endswith("expected a whole number")
    assert getattr(settings.load({name: "2"}), name) == 2


def test_a_choice_is_told_in_full():
    assert refusal(LOG_FORMAT="xml") == "LOG_FORMAT='xml': expected one of console, json"


@pytest.mark.parametrize("agent_id", ["register", "due-for-ping"])
def test_an_id_that_is_a_path_of_the_rest_interface_is_no_agents(agent_id):
    """The registry would refuse that agent's registration for ever."""
    assert "reserved" in refusal(AGENT_ID=agent_id)
    assert settings.load({"AGENT_ID": agent_id + "-1"}).agent_id == agent_id + "-1"


@pytest.mark.parametrize(
    "url",
    [
        "nats://127.0.0.1:4222",
        "127.0.0.1:4222",
        "tls://a.b:1, nats://c",
        "ws://u:p@h:80/",
        "nats://[::1]:4222",
    ],
)
def test_addresses_of_a_bus(url):
    assert settings.load({"NATS_URL": url}).nats_url == url


@pytest.mark.parametrize("folder", ["/data/*", "/data/what?", "/data/[prod]", "~/a*b"])
def test_a_data_dir_that_would_be_taken_for_a_pattern_is_refused(folder: str):
    assert "a path without * ? [" in refusal(GPUPING_DATA_DIR=folder)
    with pytest.raises(SettingsError):
        settings.load({}, GPUPING_DATA_DIR=folder)


@pytest.mark.parametrize("folder", ["/data/env=prod", "/data/it's", "/data/a b;c#d%20", "/data/ä"])
def test_other_data_dirs_are_fine(folder: str):
    assert str(settings.load({"GPUPING_DATA_DIR": folder}).data_dir) == folder
