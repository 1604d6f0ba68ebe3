"""The operator says which GPUs are expected of a host, from when on, and it is logged who did."""

import asyncio
import getpass
import os
import sys
from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from bus.client import audit
from bus.client.fleet_client import FleetClient
from bus.contract.messages import PingRequest, encode
from bus.contract.questions import ExpectGpusRequest, RegisterRequest
from bus.errors import RefusedError
from bus.identity import tokens
from bus.settings import Settings
from gateway import service as gateway_service
from scheduler.service import running
from tests.agents import report
from tests.history import until_history
from tests.waiting import passed

OLD, OTHER, NEW = "GPU-a-0", "GPU-a-1", "GPU-new"


@pytest.fixture
def config(base_settings: Settings) -> Settings:
    """Pings by hand only, after the first."""
    return replace(
        base_settings,
        PING_BASE_INTERVAL_MINUTES=10.0,
        PING_MAX_INTERVAL_HOURS=1.0,
        PING_RESPONSE_TIMEOUT_SECONDS=20.0,
    )


def two_gpus(agent_id: str, request: PingRequest) -> bytes:
    return encode(report(agent_id, request, gpus=2))


def change(*uuids: str, **more: object) -> ExpectGpusRequest:
    return ExpectGpusRequest(expected_gpus=uuids, author="user ada", **more)  # type: ignore[arg-type]


async def enrolled(bus, config, agents) -> FleetClient:
    """One agent with two GPUs, after its first answer, and a second later."""
    await agents.add("a", two_gpus)
    client = FleetClient(bus, config.PING_RESPONSE_TIMEOUT_SECONDS)
    await client.register("a", RegisterRequest())
    first = (await until_history(bus, lambda h: h["a"]))["a"][0]
    await passed(first.last.pinged_at, seconds=1.5)
    return client


async def test_a_replaced_gpu_counts_until_then_and_the_new_one_from_then_on(bus, config, agents):
    async with running(config):
        client = await enrolled(bus, config, agents)
        before = await client.expected_gpus("a")
        assert (before.expected_gpus, before.changes) == ((OLD, OTHER), ())
        asked_at = datetime.now(UTC)
        after = await client.expect_gpus("a", change(NEW, OTHER, replaces=(OLD, OTHER)))
        assert after.expected_gpus == (NEW, OTHER)
        assert [(c.uuid, c.expected, c.author) for c in after.changes] == [
            (OLD, False, "user ada"),
            (NEW, True, "user ada"),
        ]
        for made in after.changes:
            assert asked_at <= made.since == made.at <= datetime.now(UTC)
        changed_at = after.changes[0].since
        await passed(changed_at, seconds=0.5)
        await client.ping_now("a")
        last = (await until_history(bus, lambda h: len(h["a"]) == 2))["a"][1].last
        assert agents.asked["a"][-1].expected_gpus == (NEW, OTHER)
        rows = {row.uuid: row.seconds for row in last.gpus}
        until_change = (changed_at - last.since).total_seconds()
        from_change = (last.pinged_at - changed_at).total_seconds()
        assert rows[OLD].up == pytest.approx(until_change, abs=0.002)
        assert rows[NEW].down == pytest.approx(from_change, abs=0.002)  # the host lacks it
        assert rows[OTHER].up == last.window_seconds
        assert "unreported" in last.remarks
        # The view shows what is owed now, and what is there without being owed.
        shown = {gpu.uuid: gpu for gpu in (await client.agent("a")).gpus}
        assert (shown[NEW].state, shown[NEW].reasons) == ("down", ("unreported",))
        assert (shown[OLD].expected, shown[OTHER].expected) == (False, True)


async def test_a_forgotten_gpu_costs_nothing_from_then_on_and_no_report_brings_it_back(
    bus, config, agents
):
    async with running(config):
        client = await enrolled(bus, config, agents)
        begin = (await client.expected_gpus("a")).open_since
        await client.expect_gpus("a", change(OTHER, since=begin))
        await client.ping_now("a")
        last = (await until_history(bus, lambda h: len(h["a"]) == 2))["a"][1].last
        assert {row.uuid for row in last.gpus} == {OTHER}
        assert last.uptime_percent == 100.0
        assert (await client.expected_gpus("a")).expected_gpus == (OTHER,)


async def test_what_is_recorded_is_never_accounted_anew(bus, config, agents):
    async with running(config):
        client = await enrolled(bus, config, agents)
        shown = await client.expected_gpus("a")
        refusals = {
            "are recorded": change(OTHER, since=shown.open_since - timedelta(seconds=1)),
            "in the future": change(OTHER, since=datetime.now(UTC) + timedelta(minutes=1)),
            "changed meanwhile": change(OTHER, replaces=(OLD,)),
            "named twice": change(OTHER, OTHER),
        }
        for reason, request in refusals.items():
            with pytest.raises(RefusedError, match=reason):
                await client.expect_gpus("a", request)
        with pytest.raises(RefusedError) as empty:
            await client.expect_gpus("a", change())
        assert empty.value.code == 400
        with pytest.raises(RefusedError) as unknown:
            await client.expect_gpus("nobody", change(OTHER))
        assert unknown.value.code == 404
        assert await client.expected_gpus("a") == shown


async def test_the_log_of_changes_only_grows_and_a_mistake_can_be_undone(bus, config, agents):
    async with running(config):
        client = await enrolled(bus, config, agents)
        forgotten = await client.expect_gpus("a", change(OTHER))
        moment = forgotten.changes[0].since
        with pytest.raises(RefusedError, match="takes effect no earlier"):
            await client.expect_gpus(
                "a", change(OLD, OTHER, since=moment - timedelta(milliseconds=2))
            )
        undone = await client.expect_gpus("a", change(OLD, OTHER, since=moment))
        assert undone.changes[:1] == forgotten.changes
        assert [c.expected for c in undone.changes] == [False, True]
        await client.ping_now("a")
        last = (await until_history(bus, lambda h: len(h["a"]) == 2))["a"][1].last
        assert last.gpus == ()  # both count for the whole window, as the host itself
        assert last.uptime_percent == 100.0
    entries = (await audit.read_page(bus, 10)).entries
    assert [(e.action, e.actor) for e in entries[:2]] == [("expect-gpus", "user ada")] * 2


async def test_a_host_has_gpus_expected_of_it_before_its_first_report(bus, config, agents):
    """Its own first report then says nothing about what is expected."""
    async with running(config):
        client = FleetClient(bus, config.PING_RESPONSE_TIMEOUT_SECONDS)
        await client.register("a", RegisterRequest())
        await client.expect_gpus("a", change(OLD, OTHER, NEW))
        await agents.add("a", two_gpus)
        await until_history(bus, lambda h: h["a"] and h["a"][0].last.outcome == "answered")
        assert (await client.expected_gpus("a")).expected_gpus == (OLD, OTHER, NEW)


async def gpuping(*arguments: str, token: str = "") -> tuple[int, str]:
    """The exit code and all that the command printed."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gpuping", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=os.environ | {"GPUPING_TOKEN": token},
    )
    output, _ = await child.communicate()
    assert child.returncode is not None
    return child.returncode, output.decode()


async def test_the_command_line_shows_and_changes_it_over_rest_in_the_name_of_the_token(
    bus, config, agents, tmp_path
):
    texts = []
    secrets = {}
    for name, role in (("ada", "operator"), ("eve", "viewer")):
        secrets[name], token = tokens.create(name, role)
        texts.append(tokens.as_toml(token))
    (tmp_path / "tokens.toml").write_text("".join(texts))
    chosen = replace(config, GATEWAY_PORT=0, GPUPING_TOKENS_FILE=str(tmp_path / "tokens.toml"))
    async with running(config), gateway_service.running(chosen) as gateway:
        client = await enrolled(bus, config, agents)
        here = ("--server-url", gateway.url)
        code, text = await gpuping("gpus", "a", *here, token=secrets["eve"])
        assert code == 0, text
        assert "2/2 up" in text
        assert text.count("since the first report") == 2
        code, text = await gpuping("gpus", "a", "forget", OLD, *here, token=secrets["eve"])
        assert (code, "operator" in text) == (1, True), text
        code, text = await gpuping("gpus", "a", "replace", OLD, NEW, *here, token=secrets["ada"])
        assert code == 0, text
        assert "by token ada" in text
        made = await client.expected_gpus("a")
        assert made.expected_gpus == (NEW, OTHER)
        assert {c.author for c in made.changes} == {"token ada"}
        early = "2020-01-01T00:00:00Z"
        code, text = await gpuping(
            "gpus", "a", "forget", NEW, "--from", early, *here, token=secrets["ada"]
        )
        assert (code, "are recorded" in text) == (1, True), text
        for wrong in (
            ("replace", OLD),
            ("replace", OLD, "GPU-x"),
            ("expect", OTHER),
            ("expect",),
            ("forget", NEW, OTHER),
        ):
            code, text = await gpuping("gpus", "a", *wrong, *here, token=secrets["ada"])
            assert code == 1, text
        assert await client.expected_gpus("a") == made
    (entry,) = (await audit.read_page(bus, 1)).entries
    assert (entry.action, entry.actor, entry.agent_id) == ("expect-gpus", "token ada", "a")
    assert entry.before == {"expected_gpus": [OLD, OTHER]}
    assert entry.after is not None
    assert entry.after["expected_gpus"] == [NEW, OTHER]


async def test_the_command_line_changes_it_over_the_bus_in_the_name_of_the_user(
    bus, config, agents, monkeypatch, tmp_path
):
    monkeypatch.setenv("NATS_URL", config.NATS_URL)
    async with running(config):
        client = await enrolled(bus, config, agents)
        code, text = await gpuping("gpus", "a", "expect", NEW, "--data-dir", str(tmp_path))
        assert code == 0, text
        changes = (await client.expected_gpus("a")).changes
    assert [(c.uuid, c.author) for c in changes] == [(NEW, f"user {getpass.getuser()}")]
