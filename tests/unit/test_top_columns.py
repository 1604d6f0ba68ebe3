"""Which columns of `gpuping top` a terminal has room for."""

import pytest

from bus.contract.dashboard import Dashboard, FleetUptime, Totals
from bus.contract.messages import SummedSeconds
from gpuping.output.dashboard_screen import headline
from gpuping.output.tables import uptime_of_a_day
from gpuping.top.columns import COLUMNS, GAP, columns_that_fit
from tests.gateway_behind import NOW, agent


@pytest.mark.parametrize("width", range(20, 240, 7))
def test_columns_fit_and_the_least_important_go_first(width: int) -> None:
    shown = columns_that_fit(width, id_width=12)
    needed = sum(column.width + GAP for column in shown)
    assert needed <= max(width, 12 + 11 + 2 * GAP)  # the agent and its status are always there
    left_out = [c.priority for c in COLUMNS if c.heading not in {s.heading for s in shown}]
    assert not left_out or min(left_out) > max(column.priority for column in shown)
    headings = [column.heading for column in shown]
    assert headings == [c.heading for c in COLUMNS if c.heading in headings]


def test_eighty_characters_show_what_one_is_paid_by() -> None:
    headings = [column.heading for column in columns_that_fit(80, id_width=12)]
    assert headings[:4] == ["Agent", "Status", "GPUs", "Uptime"]
    assert "Next ping" in headings
    assert "Took" not in headings


def test_all_columns_are_shown_where_there_is_room_and_the_reasons_have_the_rest() -> None:
    shown = columns_that_fit(240, id_width=12)
    assert len(shown) == len(COLUMNS)
    assert sum(column.width + GAP for column in shown) == 240


def test_an_id_of_any_length_leaves_room_for_the_others() -> None:
    headings = [column.heading for column in columns_that_fit(80, id_width=128)]
    assert headings[:4] == ["Agent", "Status", "GPUs", "Uptime"]


def test_a_day_of_less_than_an_interval_is_no_figure_yet() -> None:
    def shown(judged: float | None) -> str:
        return uptime_of_a_day(agent("a", uptime_24h_percent=97.0, uptime_24h_seconds=judged)).plain

    assert [shown(judged) for judged in (60.0, 900.0, None)] == ["too early", "97.00 %", "97.00 %"]
    assert uptime_of_a_day(agent("a")).plain == uptime_of_a_day(agent("b")).plain != "too early"


@pytest.mark.parametrize(("judged", "shown"), [(60.0, "too early"), (1800.0, "100.00 %")])
def test_the_fleet_line_names_no_uptime_of_less_than_an_interval_a_host(
    judged: float, shown: str
) -> None:
    uptime = FleetUptime(
        period_hours=24.0,
        uptime_percent=100.0,
        seconds=SummedSeconds(up=judged),
        verdicts={},
    )
    dashboard = Dashboard(
        generated_at=NOW,
        totals=Totals(agents=2, pings=2, missed=0, in_flight=0),
        by_status={"healthy": 2},
        uptime=uptime,
        response_ms={},
        late_ms={},
        due=0,
        next_ping_at=None,
        agents=(),
        recent=(),
        degraded=(),
        base_interval_minutes=15.0,
    )
    assert f"uptime 24 h {shown}" in headline(dashboard).plain
