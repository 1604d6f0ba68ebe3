"""`gpuping up --demo`: twelve hosts in mixed states, and a month behind them."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from gpuping.up.demo import HOSTS
from tests.acceptance.system import Up, run, until
from tests.browser import chromium, violations
from tests.integration.test_dashboard_truth import audit

GROUND = "return getComputedStyle(document.body).backgroundColor"
SIDEWAYS = "return document.documentElement.scrollWidth > innerWidth"


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    system = Up(tmp_path_factory.mktemp("data"), "--demo")
    try:
        system.printed("ready after", seconds=300)
        yield system.ready()
    finally:
        system.stop()


def test_twelve_hosts_carry_on_where_their_month_ends(up: Up) -> None:
    agents = until(lambda: up.agents() if len(up.agents()) == len(HOSTS) else None, "twelve hosts")
    assert set(agents) == {host.agent_id for host in HOSTS}
    # a ping that goes unanswered while the whole machine stands still is our own outage, not a miss
    until(lambda: up.agents()["sin-h200-02"]["status"] == "missing", "the host is off", 180)
    off = up.agents()["sin-h200-02"]
    assert {gpu["name"] for gpu in off["gpus"]} == {"Simulated GPU"}

    def carries_on() -> bool:
        """It was pinged after the month. A busy machine may make it miss one at the start."""
        agent = up.agents()["fra-a100-01"]
        is_well = agent["status"] == "healthy" and agent["consecutive_poor_uptime"] == 0
        return bool(is_well and agent["total_pings"] >= 2883)

    until(carries_on, "pings after the month")


def test_the_terminal_shows_the_demo_where_nothing_else_was_started(up: Up) -> None:
    shown = run("top", "--once", "--data-dir", str(up.data_dir), COLUMNS="80")
    assert shown.returncode == 0, shown.stderr
    lines = [line.rstrip() for line in shown.stdout.splitlines()]
    assert max(len(line) for line in lines) <= 80
    first_words = {line.split()[0] for line in lines if line}
    assert {host.agent_id for host in HOSTS} <= first_words, lines
    assert "`gpuping up` runs" in run("doctor", "--data-dir", str(up.data_dir)).stdout


@pytest.mark.slow
def test_every_command_finds_the_demo_where_nothing_else_was_started(
    up: Up, tmp_path: Path
) -> None:
    """`creds` looked for the identities of a fleet that does not exist, and `backup` made one."""
    home = up.data_dir.parent if up.data_dir.name == "demo" else up.data_dir
    asked = (
        ("creds", "list"),
        ("creds", "hosts"),
        ("creds", "unsigned"),
        ("creds", "agent", "by-hand", "-o", str(tmp_path / "by-hand.creds")),
        ("creds", "revoke", "by-hand"),
        ("enroll", "new", "--id", "fra-a100-01", "--revoke"),
        ("alerts", "list"),
        ("gpus", "ams-l40-03"),
        ("backup", str(tmp_path / "backup")),
    )
    for words in asked:
        done = run(*words, "--data-dir", str(home))
        assert done.returncode == 0, (words, done.stderr)
    assert not (home / "nats").exists()
    assert not (home / "identity").exists()
    unknown = run("backup", str(tmp_path / "none"), "--data-dir", str(tmp_path / "empty"))
    assert unknown.returncode == 1
    assert "nothing was ever started on" in unknown.stderr
    assert not (tmp_path / "empty").exists()


def rfc3339(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


def test_the_month_is_whole(up: Up) -> None:
    until(lambda: "storage" not in up.get("/ping-system/dashboard")["degraded"], "storage answers")
    since, until_start = rfc3339(up.begun - timedelta(days=31)), rfc3339(up.begun)
    series = up.get(f"/ping-system/agents/fra-a100-01/series?since={since}&until={until_start}")
    assert series["pings"] >= 2879  # the last one may be a moment later
    assert series["missed"] == 0
    assert series["uptime_percent"] > 99
    seconds = sum(series["seconds"].values())
    assert seconds == pytest.approx(30 * 86_400, abs=7_200)


def test_every_row_says_what_rest_says(up: Up, tmp_path: Path) -> None:
    """Of hosts in mixed states, whose uptimes, intervals and response times differ."""
    until(lambda: "storage" not in up.get("/ping-system/dashboard")["degraded"], "storage answers")
    with chromium(tmp_path / "profile") as browser:
        browser.open(f"{up.url}/#/")
        browser.see("[data-agent=sin-h200-02]")
        assert audit(browser, up) == {host.agent_id for host in HOSTS}
        browser.open(f"{up.url}/#/?q=site:FRA")
        browser.see("[data-agent=fra-h100-01]")
        found = {host.agent_id for host in HOSTS if host.site == "FRA"}
        assert audit(browser, up, search="site:FRA") == found
        assert browser.console_errors() == []


def test_a_host_that_is_off_loses_its_own_time_once(up: Up) -> None:
    uptime = up.get("/ping-system/dashboard")["uptime"]
    assert uptime["unreported_seconds"] == pytest.approx(86_400, abs=1_800)


def test_the_wall_is_live_and_the_title_counts_the_hosts_in_trouble(up: Up, tmp_path: Path) -> None:
    with chromium(tmp_path / "profile") as browser:
        browser.open(f"{up.url}/#/wall")
        browser.see(".wall-canvas canvas", seconds=60)
        browser.see(".wall-live", "Live")
        browser.wait_for(r"return /^\(\d+\) wall/.test(document.title)")
        assert violations(browser) == []
        assert browser.console_errors() == []


def test_the_page_of_a_month_says_what_the_statement_says(up: Up, tmp_path: Path) -> None:
    """The figure is that of the statement, and the costs lead from 100 % down to it."""
    month = f"{datetime.now(UTC) - timedelta(days=12):%Y-%m}"
    host = "ams-l40-03"
    address = f"/ping-system/agents/{host}"
    rate = {"labels": {"rate_per_hour": "2.50", "currency": "EUR"}}
    httpx.patch(f"{up.url}{address}/labels", json=rate, timeout=30).raise_for_status()
    with chromium(tmp_path / "profile") as browser:
        browser.open(f"{up.url}/#/agent/{host}/{month}")
        browser.see(".month-figure b", "%", seconds=60)
        browser.see(".lanes svg[data-row=host]")
        costs = [cost.text for cost in browser.all(".fall details .fall-cost")]
        rows = {row.get_attribute("data-row") for row in browser.all(".lanes svg[data-row]")}
        days = len(browser.all(".calendar .day"))
        shown = browser.text(".month-figure b")
        browser.see(".waterfall .note", "At 2.5 EUR an hour of uptime")
        paid = browser.text(".fall.is-end:last-child .fall-cost")
        browser.see(".fall details summary").click()
        browser.see(".fix", "The GPU fell off the bus")
        assert violations(browser) == []
        assert browser.console_errors() == []
        # as a file: the gateway's policy for this page lets no script run, not even that of axe
        statement = tmp_path / "statement.html"
        of_few_incidents = up.url + "/ping-system/agents/fra-h100-02/report?format=html"
        statement.write_text(httpx.get(f"{of_few_incidents}&month={month}", timeout=60).text)
        for scheme, ground in (("light", "rgb(255, 255, 255)"), ("dark", "rgb(11, 17, 14)")):
            browser.emulate(320, 700, scheme=scheme)
            browser.open(statement.as_uri())
            browser.see("h1", "fra-h100-02")
            assert browser.script(GROUND) == ground
            assert browser.script(SIDEWAYS) is False
            assert violations(browser) == [], scheme
    stated = up.get(f"{address}/report?month={month}")["host"]["uptime_percent"]
    explained = up.get(f"{address}/explanation?month={month}")
    points = sum(cause["points"] for cause in explained["causes"])
    assert 100 - points == pytest.approx(explained["host"]["uptime_percent"], abs=1e-9)
    assert float(shown.rstrip("%")) == pytest.approx(stated, abs=0.02)  # pings go on meanwhile
    # what costs less than a thousandth of a point is said to
    amounts = [cost for cost in costs if not cost.startswith("<")]
    lost = sum(float(amount.split()[0].lstrip("\N{MINUS SIGN}")) for amount in amounts)
    assert lost == pytest.approx(100 - stated, abs=0.02)
    earned = explained["judged_seconds"] / 3600 * explained["host"]["uptime_percent"] / 100 * 2.5
    assert float(paid.removesuffix(" EUR")) == pytest.approx(earned, abs=0.5)
    assert rows == {"host", "0", "1"}
    assert days == len(explained["days"])
