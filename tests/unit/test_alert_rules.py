"""The alerts file, and what follows from it for one change."""

from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest

from bus.contract.alerts import AlertChange, Condition, Conditions, RuleName, Silence
from bus.errors import SettingsError
from gpuping.alerts.board import Kept
from gpuping.alerts.deliver.channels import apprise_service
from gpuping.alerts.deliver.channels.webhook import signature_headers
from gpuping.alerts.deliver.planning import plan
from gpuping.alerts.deliver.sender import retry_seconds
from gpuping.alerts.detect.findings import Findings, Moment, Subject, advance
from gpuping.alerts.rules import wording
from gpuping.alerts.rules.alerts_file import Route, parse, ready_made, secret_key
from gpuping.alerts.rules.rulebook import Rulebook, quiet_until

NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)
TARGETS = """
[[target]]
name = "mail"
url = "mailtos://user:pass@smtp.example.org?to=a@example.org"
[[target]]
name = "pager"
webhook = "https://pager.example.org/x"
secret = "0123456789abcdef"
"""


def change(number: int, **about: Any) -> Kept[AlertChange]:
    plain = {
        "change_id": f"c{number}",
        "rule": "missing",
        "kind": "began",
        "condition": "missing",
        "about": f"host-{number}",
        "at": NOW,
        "since": NOW - timedelta(minutes=number),
        "recorded_at": NOW - timedelta(minutes=5),
        "labels": {"site": "FRA"},
    }
    return Kept(AlertChange(**(plain | about)), number)


def rulebook(text: str = "") -> Rulebook:
    return Rulebook(parse(text + TARGETS, "FILE"))


def test_every_rule_has_a_ready_made_one() -> None:
    assert {rule.on for rule in ready_made()} == set(get_args(RuleName))
    for rule in ready_made():
        assert rule.severity is not None
    assert set(wording._WORDS) == set(get_args(RuleName))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = [", "FILE: no TOML"),
        ("group_minutes = 1", "FILE: Object contains unknown field group_minutes"),
        ('[[target]]\nname = "x"\nurl = "mailto://a"\nwebhook = "http://b"', "either url or"),
        ('[[target]]\nname = "x"', "target 'x': expected either url or webhook"),
        ('[[target]]\nname = "x"\nurl = "nonsense-with-a-secret"', "expected an URL of apprise"),
        ('[[target]]\nname = "x"\nwebhook = "ftp://a"\nsecret = "s"', "expected a webhook like"),
        ('[[target]]\nname = "x"\nwebhook = "http://a"', "needs a secret"),
        ('[[target]]\nname = "x"\nwebhook = "http://a"\nsecret = "short"', "16 bytes or more"),
        ('[[target]]\nname = "x"\nwebhook = "http://a"\nsecret = "whsec_!"', "no base64"),
        ('[[target]]\nname = "a"\nurl = "x://"\n[[target]]\nname = "a"\nurl = "x://"', "two "),
        ('[[route]]\ntargets = ["nobody"]', "names the target 'nobody', which is not in the file"),
        ('[[route]]\ntargets = ["mail"]\nquiet = "10pm-6am"' + TARGETS, "matching regex"),
        ('[[route]]\ntargets = ["mail"]\nzone = "Mars/Base"' + TARGETS, "zone 'Mars/Base'"),
        ('[[rule]]\non = "mising"', "Invalid enum value 'mising' - at $.rule[0].on"),
        ('[[rule]]\non = "missing"\ndays = 3', "rule 'missing': it has no days"),
        ('certificates = ["example.org"]', "certificates: expected host:port"),
    ],
)
def test_a_bad_file_is_one_line_without_secrets(text: str, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(text, "FILE")
    line = str(caught.value)
    assert said in line
    assert line.startswith("FILE: ")
    assert "\n" not in line
    assert "nonsense-with-a-secret" not in line


def test_own_rules_come_first_and_change_only_what_they_name() -> None:
    book = rulebook(
        '[[rule]]\non = "missing"\nmatch = {site = "LAB*"}\nenabled = false\n'
        '[[rule]]\non = "disconnected"\nminutes = 3\n'
    )
    assert not book.decide("missing", {"site": "LAB-2"}).is_told
    assert book.decide("missing", {"site": "FRA"}) == (True, "critical")
    assert book.threshold("disconnected", "minutes") == 3
    assert book.threshold("certificate", "days") == 14
    assert book.decide("gpu-incident", {"state": "degraded"}).severity == "warning"
    assert not book.decide("gpu-incident", {"state": "event"}).is_told
    assert not book.decide("missing", {}, is_end=True).is_told
    assert book.decide("disk", {}, is_end=True).is_told


def test_hosts_of_a_site_are_one_message_to_each_target() -> None:
    changes = [change(number) for number in range(14)]
    made = plan(changes, rulebook(), [], NOW)
    assert sorted(group.target for group in made.groups) == ["mail", "pager"]
    members = [kept.value for kept in made.groups[0].changes]
    title = wording.title(members, made.groups[0].labels)
    assert title == "14 hosts of site FRA missing since 2026-11-26 11:47 UTC"


def test_routes_choose_by_label_rule_and_severity() -> None:
    book = rulebook(
        '[[route]]\ntargets = ["mail"]\nmatch = {site = "OSL"}\n'
        '[[route]]\ntargets = ["pager"]\nseverity = "critical"\nrules = ["missing", "poor"]\n'
    )
    in_oslo = change(1, labels={"site": "OSL"})
    poor = change(2, rule="poor")  # a warning only
    missing = change(3)
    made = plan([in_oslo, poor, missing], book, [], NOW)
    told = {(group.target, kept.value.about) for group in made.groups for kept in group.changes}
    assert told == {("mail", "host-1"), ("pager", "host-1"), ("pager", "host-3")}
    assert made.settled == [poor], "nobody wants to be told of it"


def test_changes_wait_for_their_group_for_a_while() -> None:
    fresh = change(1, recorded_at=NOW - timedelta(seconds=3))
    assert plan([fresh], rulebook(), [], NOW).groups == []
    old = change(2, recorded_at=NOW - timedelta(seconds=16))
    made = plan([fresh, old], rulebook(), [], NOW)
    assert [len(group.changes) for group in made.groups] == [2, 2]


def test_quiet_hours_hold_back_what_is_not_critical() -> None:
    book = rulebook(
        '[[route]]\ntargets = ["mail"]\nquiet = "22:00-07:00"\nzone = "Europe/Berlin"\n'
    )
    night = datetime(2026, 11, 26, 3, 0, tzinfo=UTC)
    poor, missing = change(1, rule="poor"), change(2)
    made = plan([poor, missing], book, [], night)
    assert [kept.value.rule for group in made.groups for kept in group.changes] == ["missing"]
    assert made.held == 1
    morning = datetime(2026, 11, 26, 6, 0, tzinfo=UTC)
    assert len(plan([poor], book, [], morning).groups) == 1


@pytest.mark.parametrize(
    ("quiet", "hour", "is_quiet"),
    [
        ("22:00-07:00", 21, False),
        ("22:00-07:00", 23, True),
        ("22:00-07:00", 6, True),
        ("22:00-07:00", 7, False),
        ("12:00-13:00", 12, True),
        ("12:00-13:00", 13, False),
    ],
)
def test_quiet_hours_may_cross_midnight(quiet: str, hour: int, is_quiet: bool) -> None:
    route = Route(targets=("mail",), quiet=quiet)
    at = datetime(2026, 11, 26, hour, 0, tzinfo=UTC)
    assert (quiet_until(route, at) is not None) == is_quiet


def test_what_began_and_ended_in_a_silence_is_not_told() -> None:
    silence = Silence(
        silence_id="s",
        match={"about": "host-*"},
        until=NOW + timedelta(hours=1),
        reason="works",
        made_at=NOW,
    )
    began = change(1, rule="disk", condition="disk", about="host-a")
    ended = change(2, rule="disk", condition="disk", about="host-a", kind="ended")
    still = change(3, rule="disk", condition="disk", about="host-b")
    made = plan([began, ended, still], rulebook(), [silence], NOW)
    assert made.settled == [began, ended]
    assert made.held == 1
    later = NOW + timedelta(hours=2)
    told = plan([still], rulebook(), [silence], later).groups
    assert {kept.value.about for group in told for kept in group.changes} == {"host-b"}


def test_a_condition_is_told_when_it_has_lasted() -> None:
    subject = Subject("connection", "a", {})
    delay = timedelta(minutes=10)
    found = Findings({"disconnected": Condition(rule="disconnected", since=NOW)})

    def look(before: Conditions | None, minutes: float) -> Any:
        at = NOW + timedelta(minutes=minutes)
        return advance(before, subject, found, Moment(at, at), delay)

    first = look(None, 0)
    assert first.changes == ()
    assert not first.after.active["disconnected"].told
    assert look(first.after, 9) is None
    (told,) = look(first.after, 10).changes
    assert (told.kind, told.since) == ("began", NOW)
    at = NOW + timedelta(minutes=5)
    back = advance(first.after, subject, Findings(), Moment(at, at), delay)
    assert back is not None
    assert back.changes == (), "nobody was told, so nobody is told of the end"


def test_what_began_after_the_ping_was_sent_is_told() -> None:
    later = NOW + timedelta(milliseconds=48)  # the host's answer took as long
    found = Findings({"x": Condition(rule="gpu-incident", since=later)})
    transition = advance(None, Subject("host", "a", {}, 57), found, Moment(NOW, later))
    assert transition is not None
    (told,) = transition.changes
    assert (told.kind, told.since) == ("began", NOW)


def test_the_signature_is_that_of_standard_webhooks() -> None:
    # the example of the specification, standard-webhooks/spec
    headers = signature_headers(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        b'{"test": 2432232314}',
    )
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert secret_key("plain text of 16") == b"plain text of 16"


def test_no_part_of_an_address_is_in_a_reason() -> None:
    url = "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/?footer=top-secret"
    said = ["cannot reach T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ: top-secret"]
    shown = apprise_service._why(said, url, "")
    for secret in ("T1JJ3T3L2", "A1BRTD4JD", "TIiajkdnlazkcOXrIdevi7FQ", "top-secret"):
        assert secret not in shown
    mail = "mailto://bob:p%40ssword@smtp.example.org/?to=ops@example.org"
    shown = apprise_service._why(["auth of bob with p@ssword at smtp.example.org"], mail, "")
    assert shown == "auth of *** with *** at smtp.example.org"


def test_attempts_are_further_and_further_apart() -> None:
    assert [retry_seconds(attempts) for attempts in (1, 2, 3, 30)] == [5, 10, 20, 900]
