"""What `gpuping doctor` finds: one case for each thing that can be wrong."""

import time
from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from bus import settings
from bus.contract.questions import (
    AgentPage,
    BusServer,
    LostGateway,
    SchedulerStats,
    StorageStats,
)
from bus.identity import credentials
from bus.identity.authority import Authority
from bus.identity.keys import KeyKind, SigningKey
from bus.networks import AskableNetworks
from gpuping.doctor import bridge_check, fleet_checks, machine_checks
from tests.gateway_behind import agent

GIB = 2**30
SERVER = BusServer(name="n1", stored_bytes=GIB, limit_bytes=10 * GIB)
SCHEDULER = SchedulerStats(
    instance="s1",
    started_at=datetime(2026, 11, 26, tzinfo=UTC),
    verdicts={},
    in_flight=0,
    in_flight_limit=100,
    waiting=0,
    held_back_seconds=0.0,
    commits=0,
    lost_races=0,
    bad_messages=0,
    events_dropped=0,
    timers_put_off=0,
    ping_seconds={},
    late_seconds={},
    bus_servers=(SERVER,),
    gateways=2,
)
STORAGE = StorageStats(
    rows=1,
    last_sequence=1,
    lag=0,
    missing_seqs=0,
    stream_begins=datetime(2026, 11, 1, tzinfo=UTC),
    stream_days_left=100.0,
    disk_free_bytes=50 * GIB,
)
NOBODY = AgentPage(agents=(), total=0)


def test_all_is_well():
    findings = (
        fleet_checks.policies([SCHEDULER]),
        fleet_checks.bus_disks([SCHEDULER]),
        fleet_checks.gateways([SCHEDULER]),
        fleet_checks.edge(STORAGE),
        fleet_checks.storage_disk(STORAGE),
        fleet_checks.agents(NOBODY, NOBODY),
    )
    assert [finding.level for finding in findings] == ["ok"] * 6


def test_policies_that_differ():
    other = replace(SCHEDULER, instance="s2", differing_policies=("s1",))
    found = fleet_checks.policies([SCHEDULER, other])
    assert found.level == "warning"
    assert "s2" in found.detail


def test_a_server_that_acknowledges_what_is_not_on_disk():
    lazy = replace(SERVER, name="n2", syncs_always=False)
    found = fleet_checks.bus_disks([replace(SCHEDULER, bus_servers=(SERVER, lazy))])
    assert found.level == "warning"
    assert "n2" in found.detail
    assert "sync_interval: always" in found.advice


def test_a_bus_that_is_nearly_full():
    full = replace(SERVER, stored_bytes=9 * GIB)
    found = fleet_checks.bus_disks([replace(SCHEDULER, bus_servers=(full,))])
    assert found.level == "warning"
    assert "90%" in found.detail


def test_nobody_sees_the_disks_of_the_bus():
    found = fleet_checks.bus_disks([replace(SCHEDULER, bus_servers=())])
    assert found.level == "note"
    assert "NATS_SYSTEM_CREDS" in found.advice


def test_a_gateway_that_is_gone():
    found = fleet_checks.gateways([replace(SCHEDULER, gateways=0)])
    assert found.level == "warning"
    assert fleet_checks.gateways([replace(SCHEDULER, gateways=None)]).level == "note"


@pytest.mark.parametrize(("left", "words"), [(1, "1 connected"), (0, "no gateway is connected")])
def test_a_gateway_that_is_frozen(left: int, words: str):
    lost = LostGateway(host="10.0.0.7", since=datetime(2026, 11, 26, 12, 3, 4, tzinfo=UTC))
    heard = replace(SCHEDULER, gateways=left, lost_gateways=(lost,))
    found = fleet_checks.gateways([replace(SCHEDULER, gateways=left), heard])
    assert found.level == "warning"
    assert words in found.detail
    assert "frozen or cut off: 10.0.0.7 since 12:03:04 UTC" in found.detail


def test_the_disk_of_storage():
    found = fleet_checks.storage_disk(replace(STORAGE, disk_free_bytes=GIB))
    assert found.level == "warning"


def test_the_edge_of_the_stream():
    near = fleet_checks.edge(replace(STORAGE, stream_days_left=3.0))
    assert near.level == "note"
    assert "3 days" in near.detail
    alone = fleet_checks.edge(replace(STORAGE, days_in_file_only=4))
    assert alone.level == "warning"
    empty = fleet_checks.edge(replace(STORAGE, stream_begins=None, days_in_file_only=1))
    assert (empty.level, "of 1 day outcomes are in storage's file only" in empty.detail) == (
        "warning",
        True,
    )


def test_hosts_that_are_dead_are_named():
    dead = agent("rack-7", status="missing", last_reason="no_responders")
    found = fleet_checks.agents(AgentPage(agents=(dead,), total=1), NOBODY)
    assert found.level == "warning"
    assert "rack-7 (no_responders)" in found.detail


def test_hosts_that_have_never_answered_are_named_once_they_were_pinged():
    waiting = agent("new", status="pending")
    silent = agent("rack-8", status="pending", missed_pings=3, last_reason="timeout")
    only_new = AgentPage(agents=(waiting,), total=1)
    assert fleet_checks.agents(NOBODY, only_new).level == "ok"
    found = fleet_checks.agents(NOBODY, AgentPage(agents=(waiting, silent), total=2))
    assert found.level == "warning"
    assert found.detail == "1 have never answered: rack-8 (timeout)"


@pytest.mark.parametrize(
    ("days", "level"), [(300, "ok"), (10, "warning"), (-1, "failure")], ids=str
)
def test_credentials_that_expire(tmp_path, days, level):
    authority = Authority.create(tmp_path / "authority")
    key = SigningKey.generate(KeyKind.USER)
    now = int(time.time())
    issued = now - 400 * 86_400
    token = authority.mint(
        "storage", "_storage", key.public, now=issued, expires_at=now + days * 86_400
    )
    file = tmp_path / "storage.creds"
    credentials.write_secret(file, credentials.to_text(token, key))
    data_dir = str(tmp_path / "data")
    found = machine_checks.expiring_credentials(
        settings.load({}, NATS_CREDS=str(file), GPUPING_DATA_DIR=data_dir)
    )
    assert found.level == level
    assert level == "ok" or "storage.creds" in found.detail


def test_an_agent_whose_address_is_not_asked_is_named_with_the_reason():
    networks = AskableNetworks.parse("10.1.0.0/16", may_be_loopback=False)
    asked = agent("a", agent_url="http://10.1.0.1:8001", by_http=True)
    on_bus = agent("b", agent_url="http://192.168.0.1", connected=True)
    assert bridge_check.judge([asked, on_bus], networks).level == "ok"
    outside = agent("c", agent_url="http://192.168.0.1:8001")
    odd = agent("d", agent_url="ftp://10.1.0.1")
    named = agent("e", agent_url="http://gpu-host:8001")
    found = bridge_check.judge([asked, on_bus, outside, odd, named], networks)
    assert found.level == "warning"
    assert "c (192.168.0.1 is not in a network of GATEWAY_BRIDGE_NETWORKS)" in found.detail
    assert "d (expected an address that begins with http" in found.detail
    assert "e (see the log of the gateway" in found.detail
    assert bridge_check.judge([outside], None).level == "ok"
    assert "nobody asks them" in bridge_check.judge([asked], None).advice
