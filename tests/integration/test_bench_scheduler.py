"""The benches of the scheduler run, small, and what they count is right.

A bench that rots would lie.
"""

import shutil

import pytest

from bench import million, prometheus_peer, registry_memory, signed_reports, timers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


async def test_each_ping_of_a_small_fleet_is_read_back_once() -> None:
    # The interval is shorter than the 10 s until the fleet is due.
    figures = await million.measure(agents=500, minutes=0.2, interval_minutes=0.1)

    # 500 agents, 12 s, every 6 s; what was due before a busy machine was ready is not counted
    assert 0 < figures["million_pings"] <= 1000
    assert (
        figures["million_pings_lost"]
        == figures["million_pings_doubled"]
        == figures["million_not_answered"]
        == 0
    )
    assert (
        0
        <= figures["million_late_p50_ms"]
        <= figures["million_durable_p50_ms"]
        <= figures["million_durable_max_ms"]
    )
    assert figures["million_scheduler_pss_megabytes"] > 10


async def test_timers_all_fire_after_the_server_was_killed() -> None:
    figures = await timers.measure(sizes=(2_000,), rates=(200,), seconds=1.0)

    assert figures["timers_2k_not_fired_at_200_per_second"] == 0
    assert figures["timers_2k_late_p50_at_200_per_second_ms"] >= 0
    assert 0 < figures["timers_2k_restart_seconds"] < 60


async def test_a_larger_registry_weighs_more() -> None:
    figures = await registry_memory.measure(small=200, large=5_000)

    assert figures["registry_scheduler_bytes_per_agent"] > 500
    assert figures["registry_disk_bytes_per_agent"] > 1_000


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="no prometheus is installed")
async def test_a_rate_that_prometheus_sustains_is_found() -> None:
    figures = await prometheus_peer.measure(
        targets=500, window_seconds=2.0, first_rate=250.0, attempts=1, budget_seconds=15
    )

    assert (
        240
        <= figures["prometheus_scrapes_per_second"]
        <= figures["prometheus_peak_scrapes_per_second"]
    )
    assert figures["prometheus_targets"] == 500


@pytest.mark.parametrize("kind", [signed_reports.QUICK, signed_reports.FULL])
def test_a_steady_run_lasts_whole_intervals_so_that_every_agent_is_due_in_it(kind) -> None:
    interval_seconds = kind["steady_agents"] / signed_reports.STEADY_RATE
    lasting = signed_reports.whole_intervals(kind["steady_seconds"], interval_seconds)
    assert lasting >= kind["steady_seconds"]
    assert lasting / interval_seconds == pytest.approx(round(lasting / interval_seconds))


def test_a_run_that_came_in_bursts_is_not_steady() -> None:
    even = signed_reports.Rate(1_111.0, 0.1, 0.1, 0.1, (140,) * 8)
    assert even.is_steady
    assert not even._replace(by_slice=(1_120, *(0,) * 7)).is_steady
    assert not even._replace(pings_per_second=0.25, by_slice=(1, *(0,) * 7)).is_steady


async def test_a_small_fleet_signs_and_is_compared_with_one_that_does_not() -> None:
    figures = await signed_reports.measure(
        agents=200, rounds=1, seconds=2.0, steady_agents=200, steady_seconds=1.0
    )

    assert figures["signed_pings_per_second"] > 0
    assert figures["signed_scheduler_cpu_ms_per_ping"] > 0
    assert figures["check_us"] > figures["sign_us"] / 2 > 0
    assert 100 < figures["signed_scheduler_bytes_per_agent"] < 2_000
