"""Secrets are hidden in whatever is shown, and nothing else is."""

import io
import json
from contextlib import redirect_stderr

import pytest
import structlog

from bus import logs, runner, settings
from bus.errors import BusError, SettingsError
from bus.redaction import redact, redact_address, without_paths
from gpuping.output import findings

# always the same: it stands in the names of tests, which every worker must collect alike
SECRET = "gpuping_" + "Zq7_" * 10 + "abc"


def name_of_case(text: str) -> str:
    """The secret is another one in every process, but pytest-xdist needs the same names in all."""
    return text.replace(SECRET, "SECRET")


@pytest.mark.parametrize(
    "address",
    [
        "nats://ada:s3cret@host:4222",
        "nats://s3cret@host",
        "tls://ada:s3cret@host/",
        "ada:s3cret@host",
        "nats:/ada:s3cret@host",
        "nats://ada:s3c/ret@host",
        "nats://ada:s3c@ret@host",
        "nats://ada:s3c'ret@host",
        'nats://ada:s3c"ret@host',
        "nats://one:s3cret@a,nats://two:s3cret@b:4222",
        f"nats://ada:{SECRET}@host",
    ],
    ids=name_of_case,
)
@pytest.mark.parametrize("text", ["{}", "no bus at {}: start it", "url={!r}", '{{"url":"{}"}}'])
def test_addresses_are_shown_without_their_secrets(address: str, text: str):
    result = redact(text.format(address))
    assert "s3c" not in result
    assert "ret@" not in result
    assert "ada:" not in result
    assert SECRET not in result
    assert "***@" in result


@pytest.mark.parametrize("address", ["s3cret@host:4222", "nats://s3cret@host", "a:s3cret@host"])
def test_what_stands_before_the_host_is_hidden_whatever_it_is(address: str):
    assert "s3cret" not in redact_address(address)
    assert "host" in redact_address(address)


@pytest.mark.parametrize(
    "text",
    [
        "nats://127.0.0.1:4222",
        "token ops@laptop from 10.0.0.1",
        "http://127.0.0.1:8000/ is ready",
        "2026-11-26T15:00:00Z [info     ] ready service=gateway",
        "agent gpu-1: 3 of 4 GPUs up, mail ops@example.org",
        "gpuping_service_up",
    ],
)
def test_what_is_no_secret_stays(text: str):
    assert redact(text) == text


@pytest.mark.parametrize(
    "text", [SECRET, f"Bearer {SECRET}", "SUA" + "M2" * 27 + "A2"], ids=name_of_case
)
def test_tokens_and_seeds_are_hidden(text: str):
    assert "***" in redact(text)
    assert text.rsplit(maxsplit=1)[-1] not in redact(text)


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_logs_hide_secrets_in_fields_and_tracebacks(log_format):
    written = io.StringIO()
    with redirect_stderr(written):
        logs.setup(settings.load({}, LOG_FORMAT=log_format))
        log = structlog.get_logger("test")
        try:
            raise BusError("no server at nats://ada:s3cret@host")
        except BusError:
            log.exception("bus_failed", url="nats://ada:s3cret@host", nested={"token": SECRET})
    text = written.getvalue()
    assert "bus_failed" in text
    assert "s3cret" not in text
    assert SECRET not in text
    if log_format == "json":
        assert json.loads(text)["event"] == "bus_failed"
    structlog.reset_defaults()


@pytest.mark.parametrize("kind", [BusError, RuntimeError])
def test_errors_hide_secrets(kind, capsys):
    runner.report(kind("no server at nats://ada:s3cret@host"))
    said = capsys.readouterr().err
    assert "nats://***@host" in said
    assert "s3cret" not in said


def test_findings_hide_secrets():
    finding = findings.failure("bus", "no bus at nats://ada:s3cret@host", "set nats://s3cret@host")
    assert "s3cret" not in finding.detail + finding.advice


@pytest.mark.parametrize(
    "environ",
    [
        {"NATS_URL": "nats://ada:s3cret@host:4222/path/more"},
        {"NATS_URL": "s3cret@ho st"},
        {"GPUPING_TOKN": "s3cret"},
        {"GPUPING_PASSWORD": "s3cret"},
    ],
)
def test_settings_that_are_refused_hide_secrets(environ):
    with pytest.raises(SettingsError) as caught:
        settings.load(environ)
    assert "s3cret" not in str(caught.value)


def test_a_secret_in_the_place_of_a_path_is_hidden_before_it_is_cut() -> None:
    """A part of a seed is none by its look."""
    seed = "SU" + "A7" * 28
    with pytest.raises(SettingsError) as caught:
        settings.load({"AGENT_SCENARIO": f"{seed}.{'x' * 5000}"})
    assert "A7A7" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("store failed: open /srv/nats/jetstream/x.blk: full", "store failed: open ***: full"),
        ("cannot open '/home/ada/data' (~/other)", "cannot open '***' (***)"),
        (r"C:\data\nats is gone", "*** is gone"),
        ("12/13 of nats://127.0.0.1:4222/ at 3/s", "12/13 of nats://127.0.0.1:4222/ at 3/s"),
    ],
)
def test_paths_are_hidden_from_readers_elsewhere(text: str, shown: str) -> None:
    assert without_paths(text) == shown
