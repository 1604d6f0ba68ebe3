"""Which columns of a list of agents or outcomes a terminal has room for."""

import pytest
from rich.console import Console

from bus.contract.dashboard import Dashboard, FleetUptime, Totals
from bus.contract.messages import SummedSeconds
from bus.contract.questions import Agent, Ping
from gpuping.output.agent_columns import agent_columns
from gpuping.output.dashboard_screen import dashboard_screen, headline
from gpuping.output.tables import uptime_of_a_day
from gpuping.output.terminal import screen_width
from tests.gateway_behind import NOW, agent, ping

GAP = 2
ALL = ("Agent", "Status", "GPUs up", "Uptime", "24 h", "Poor", "Interval", "Last ping", "Next ping")
ALL += ("Took", "Why")


def headings(width: int, id_width: int = 12) -> list[str]:
    shown = agent_columns([agent("a" * id_width)], width, GAP)
    return [column.heading for column in shown]


@pytest.mark.parametrize("width", range(20, 240, 7))
def test_columns_fit_and_the_least_important_go_first(width: int) -> None:
    shown = agent_columns([agent("a" * 12)], width, GAP)
    needed = sum(column.width + GAP for column in shown) - GAP
    assert needed <= max(width, 12 + 11 + GAP)  # the agent and its status are always there
    names = [column.heading for column in shown]
    every = agent_columns([agent("a" * 12)], 240, GAP)
    left_out = [column.priority for column in every if column.heading not in names]
    assert not left_out or min(left_out) > max(column.priority for column in shown)
    assert names == [heading for heading in ALL if heading in names]


def test_eighty_characters_show_what_one_is_paid_by() -> None:
    assert headings(78) == ["Agent", "Status", "GPUs up", "Uptime", "24 h", "Next ping"]


def test_all_columns_are_shown_where_there_is_room_and_the_reasons_have_the_rest() -> None:
    shown = agent_columns([agent("a" * 12)], 240, GAP)
    assert [column.heading for column in shown] == list(ALL)
    assert sum(column.width + GAP for column in shown) - GAP == 240


def test_an_id_of_any_length_leaves_room_for_the_others() -> None:
    assert headings(80, id_width=63)[:4] == ["Agent", "Status", "GPUs up", "Uptime"]


def printed(agents: tuple[Agent, ...], width: int) -> list[str]:
    outcomes = tuple(ping(one.agent_id, 20, "missed") for one in agents)
    console = Console(width=160)
    with console.capture() as captured:
        console.print(dashboard_screen(dashboard(1800.0, agents, outcomes), width))
    return captured.get().splitlines()


@pytest.mark.parametrize("width", [80, 120])
def test_the_screen_that_is_printed_fits_and_drops_columns_rather_than_cutting_them(
    width: int,
) -> None:
    agents = tuple(
        agent(name, uptime_24h_percent=97.0, uptime_24h_seconds=9e4, current_interval_minutes=1439)
        for name in ("fra-h100-01", "a" * 63)
    )
    lines = printed(agents, width)
    assert max(len(line.rstrip()) for line in lines) <= width
    text = "\n".join(lines)
    assert "fra-h100-01" in text
    assert "no_resp" in text
    cut = [line for line in lines if "…" in line and "aaaa" not in line and "(" not in line]
    assert not cut, "only long ids and reasons are cut"


@pytest.mark.parametrize(("columns", "width"), [("100", 100), ("", 80), ("0", 80), ("wide", 80)])
def test_where_no_terminal_tells_its_width_a_screen_is_of_eighty_characters(
    monkeypatch: pytest.MonkeyPatch, columns: str, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert screen_width(Console(force_terminal=False, width=160)) == width


def test_a_day_of_less_than_an_interval_is_no_figure_yet() -> None:
    def shown(judged: float | None) -> str:
        return uptime_of_a_day(agent("a", uptime_24h_percent=97.0, uptime_24h_seconds=judged)).plain

    assert [shown(judged) for judged in (60.0, 900.0, None)] == ["too early", "97.00 %", "97.00 %"]
    assert uptime_of_a_day(agent("a")).plain == uptime_of_a_day(agent("b")).plain != "too early"


@pytest.mark.parametrize(("judged", "shown"), [(60.0, "too early"), (1800.0, "100.00 %")])
def test_the_fleet_line_names_no_uptime_of_less_than_an_interval_a_host(
    judged: float, shown: str
) -> None:
    assert f"uptime 24 h {shown}" in headline(dashboard(judged), 80).plain


def test_the_fleet_line_is_broken_between_two_figures_only() -> None:
    lines = headline(dashboard(1800.0), 40).plain.splitlines()
    assert lines == [
        "2026-11-23 12:00:00 UTC  2 agents",
        "2 healthy  due 0  pings 2  missed 0",
        "uptime 24 h 100.00 %",
    ]


def dashboard(
    judged: float, agents: tuple[Agent, ...] = (), recent: tuple[Ping, ...] = ()
) -> Dashboard:
    uptime = FleetUptime(
        period_hours=24.0,
        uptime_percent=100.0,
        seconds=SummedSeconds(up=judged),
        verdicts={},
    )
    return Dashboard(
        generated_at=NOW,
        totals=Totals(agents=2, pings=2, missed=0, in_flight=0),
        by_status={"healthy": 2},
        uptime=uptime,
        response_ms={},
        late_ms={},
        due=0,
        next_ping_at=None,
        agents=agents,
        recent=recent,
        degraded=(),
        base_interval_minutes=15.0,
    )
