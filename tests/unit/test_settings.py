"""Settings: the names and defaults of docs/operations.md, and one line for each bad value."""

import re
from pathlib import Path

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


@pytest.mark.parametrize("text", ["20261231", "-1", "1e9", "2026-12-31", "2026-12-31T00:00:00"])
def test_a_number_is_no_time(text: str):
    """20261231 was 23 August 1970: unsigned reports counted as missed from then on."""
    assert "expected" in refusal(GPUPING_UNSIGNED_UNTIL=text)
    assert settings.load({"GPUPING_UNSIGNED_UNTIL": "2026-12-31T00:00:00Z"}) is not None


@pytest.mark.parametrize(
    "name", ["PING_UPTIME_THRESHOLD", "NATS_URL", "GPUPING_DATA_DIR", "LOG_LEVEL", "AGENT_ID"]
)
def test_bytes_that_are_not_utf_8_are_refused(name: str):
    assert "expected text in UTF-8" in refusal(**{name: "a\udcff"})


@pytest.mark.parametrize(
    "name", ["GPUPING_DATA_DIR", "NATS_CREDS", "NATS_CA", "GPUPING_TOKENS_FILE", "AGENT_STATE_DIR"]
)
def test_what_can_be_no_path_is_refused(name: str):
    assert "expected a path" in refusal(**{name: "~nosuchuser/x"})
    assert "expected a shorter path" in refusal(**{name: "a" * 5000})


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("NATS_CRED", "NATS_CREDS"),
        ("NATS_URLS", "NATS_URL"),
        ("NATS_SYSTEM_CRED", "NATS_SYSTEM_CREDS"),
        ("SCHEDULER_METRIC_PORT", "SCHEDULER_METRICS_PORT"),
        ("ENROLMENT_METRICS_PROT", "ENROLMENT_METRICS_PORT"),
        ("ALERTS_METRIC_PORT", "ALERTS_METRICS_PORT"),
        ("GPUPING_REPLICA", "GPUPING_REPLICAS"),
        ("ping_uptime_threshold", "PING_UPTIME_THRESHOLD"),
        ("gpuping_replicas", "GPUPING_REPLICAS"),
    ],
)
def test_a_mistyped_name_is_told(name: str, meant: str):
    assert f"did you mean {meant}?" in refusal(**{name: "3"}).replace(", in capitals", "")


def test_a_variable_that_only_compose_reads_is_no_mistake():
    """It may be exported for compose in the shell in which a command is given."""
    text = (Path(settings.__file__).parents[1] / "compose.yaml").read_text()
    names = set(re.findall(r"\$\{([A-Z_]+)", text))
    assert "GPUPING_VERSION" in names
    of_compose = names - set(settings.Settings.__struct_fields__)
    settings.load(dict.fromkeys(of_compose, "1"))


@pytest.mark.parametrize(
    "name", ["NATS_USER", "NATS_PASSWORD", "NATS_TOKEN", "NATS_CERT", "NATS_KEY", "NATS_TIMEOUT"]
)
def test_settings_of_the_nats_cli_are_left_alone(name: str):
    settings.load({name: "x"})


def test_a_secret_is_not_told():
    assert "short" not in refusal(AGENT_HTTP_TOKEN="short")
    assert "hunter2" not in refusal(GPUPING_TOKEN="hunter2\udcff")
    assert "hunter2" not in refusal(NATS_CRED="hunter2")


@pytest.mark.parametrize("name", ["NATS_URL", "NATS_PUBLIC_URL"])
@pytest.mark.parametrize(
    "address",
    [
        "tls://127.0.0.1:99999",
        "tls://127.0.0.1:abc",
        "tls://127.0.0.1:0",
        "tls://:4222",
        "tls://user:word@",
        "tls://[::1",
        "::1",
        "tls://127.0.0.1:4222,tls://127.0.0.1:x",
    ],
)
def test_an_address_has_a_host_and_a_port_that_can_be(name: str, address: str):
    assert "expected an address like" in refusal(**{name: address})
