"""An alert for each rule, told to a real HTTP receiver and a real SMTP server."""

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from nats.micro.request import Request

from bus.client.fleet_client import FleetClient
from bus.clock import utc_now
from bus.contract import subjects
from bus.contract.alerts import AlertsRequest, EndSilenceRequest, RuleName, SilenceRequest
from bus.contract.messages import (
    AgentEntry,
    AgentState,
    Incident,
    MaintenanceWindow,
    Seconds,
    encode,
)
from bus.contract.questions import SchedulerStats
from bus.errors import RefusedError
from bus.identity import local
from bus.identity.authority import Authority
from bus.settings import Settings
from bus.transport.connection import Client
from gpuping.alerts import endpoints, service
from gpuping.alerts.service import AlertsService
from tests import gateway_behind, storage_states
from tests.alert_receivers import Hook, Mailbox, listening_hook, listening_mailbox
from tests.storage_states import GPU
from tests.waiting import clear_of_months_end

NOW = datetime.now(UTC).replace(microsecond=0)


def alerts_settings(base: Settings, text: str, **more: object) -> Settings:
    """Settings with an alerts file of this text."""
    path = Path(base.data_dir) / "alerts.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o600)
    return msgspec.structs.replace(base, GPUPING_ALERTS_FILE=str(path), **more)


async def until(holds: Callable[[], bool], what: Callable[[], object], seconds: float = 60) -> None:
    """Polls what a thread or the bus brings; only looking tells."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not holds():
        assert asyncio.get_running_loop().time() < deadline, what()
        await asyncio.sleep(0.02)


class Fleet:
    """Writes registry entries and outcomes as schedulers do."""

    def __init__(self, bus: Client) -> None:
        self.bus = bus
        self.numbers: dict[str, int] = {}

    async def register(self, agent_id: str, **about: object) -> None:
        entry = AgentEntry(agent_id=agent_id, registered_at=NOW, enrolled_at=NOW, **about)
        await self.bus.jetstream().publish(subjects.agent_key(agent_id), encode(entry))

    async def outcome(self, agent_id: str, missed: bool = False, **about: object) -> AgentState:
        number = self.numbers[agent_id] = self.numbers.get(agent_id, 0) + 1
        outcome = {
            name: about.pop(name)
            for name in ("verdict", "remarks", "reason", "uptime_percent", "gpus", "incidents")
            if name in about
        }
        state = storage_states.state(
            agent_id,
            number,
            NOW + timedelta(seconds=number),
            None if missed else Seconds(up=900.0),
            **outcome,
        )
        state = msgspec.structs.replace(state, answered=5, **about)
        await storage_states.publish(self.bus, [state])
        return state


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[AlertsService]:
    async with service.running(settings) as alerts:
        yield alerts


@pytest.fixture
def hook() -> Hook:
    with listening_hook() as receiver:
        yield receiver


@pytest.fixture
def mailbox() -> Mailbox:
    with listening_mailbox() as receiver:
        yield receiver


class Services(gateway_behind.Behind):
    """A scheduler whose server's clock is wrong, and a storage that lags."""

    async def _scheduler_stats(self, request: Request) -> SchedulerStats:
        stats = await super()._scheduler_stats(request)
        return msgspec.structs.replace(stats, bus_clock_offset_seconds=-7.5)


ALL_RULES = """
group_seconds = 0
certificates = ["127.0.0.1:{port}"]
[[rule]]
on = "disk"
percent = 100
[[rule]]
on = "disconnected"
minutes = 0
[[rule]]
on = "storage-lag"
outcomes = 0
"""


@asynccontextmanager
async def tls_server(folder: Path) -> AsyncIterator[int]:
    """A server whose certificate is trusted, and expires in three days."""
    certificate, key = folder / "server.pem", folder / "server.key"
    words = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3"
        " -subj /CN=x -addext subjectAltName=IP:127.0.0.1"
    )
    command = [*words.split(), "-keyout", str(key), "-out", str(certificate)]
    await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    async def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(close, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate")
async def test_each_rule_is_told_over_http_and_by_mail(
    bus: Client,
    base_settings: Settings,
    hook: Hook,
    mailbox: Mailbox,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data_dir = base_settings.data_dir
    (data_dir / "nats").mkdir(parents=True)
    authority = Authority.create(local.folder_of(data_dir))
    authority.issue("agent", "agent-9", tmp_path / "agent-9.creds", days=5)
    behind = Services(bus)
    behind.agents["cut-off"] = gateway_behind.agent(
        "cut-off", connected=False, metadata={"site": "FRA"}
    )
    await behind.serve_scheduler()
    await behind.serve_storage()
    fleet = Fleet(bus)
    await clear_of_months_end()
    this_month = utc_now().replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    booked = MaintenanceWindow(since=this_month, until=this_month + timedelta(hours=3))
    await fleet.register("booked", maintenance=(booked,))
    for agent_id in ("a", "gpu", "set", "twin", "clock"):
        await fleet.register(agent_id, expected_gpus=(GPU,), metadata={"site": "FRA"})
    async with tls_server(tmp_path) as port:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "server.pem"))
        text = ALL_RULES.format(port=port) + hook.toml() + mailbox.toml()
        settings = alerts_settings(base_settings, text, GPUPING_MAINTENANCE_BUDGET_HOURS=3.0)
        async with running(settings):
            await fleet.outcome("a", verdict="poor", recovering=True, uptime_percent=12.5)
            await fleet.outcome("a", missed=True, recovering=True, consecutive_poor=2)
            await fleet.outcome(
                "a", missed=True, recovering=True, consecutive_poor=9, interval_seconds=86_400.0
            )
            await fleet.outcome("a", verdict="good", recovering=False)
            down = storage_states.gpu(Seconds(down=900.0), state="down", reasons=("lost",))
            await fleet.outcome("gpu", gpus=(down,))
            other = storage_states.gpu(Seconds(up=900.0), uuid="GPU-new")
            await fleet.outcome("set", gpus=(other,))
            await fleet.outcome("twin", conflicting_boot_ids=("b1", "b2"))
            await fleet.outcome("clock", remarks=("clock_disagrees",))

            def told() -> set[str]:
                return {change["rule"] for change in hook.changes}

            every_rule = set(get_args(RuleName))
            await until(lambda: told() == every_rule, lambda: every_rule - told())
            messages = len(hook.received)
            await until(lambda: len(mailbox.mails) >= messages, lambda: len(mailbox.mails))
    assert hook.badly_signed == []
    subject_lines = [mail["Subject"] for mail in mailbox.mails]
    assert any("a is missing since" in line for line in subject_lines), subject_lines
    by_rule = {change["rule"]: change for change in hook.changes}
    assert by_rule["gpu-incident"]["labels"]["reason"] == "lost"
    assert by_rule["poor"]["labels"]["site"] == "FRA"
    assert "12.50 %" in by_rule["poor"]["detail"]
    assert by_rule["credential"]["detail"].startswith("agent agent-9 expires")
    assert by_rule["certificate"]["detail"].startswith(f"127.0.0.1:{port} expires")
    assert by_rule["disconnected"]["about"] == "cut-off"
    ids = [change["change_id"] for change in hook.changes]
    assert len(ids) == len(set(ids)), "each change is told once"
    mailed = [mail["X-Gpuping-Notification"] for mail in mailbox.mails]
    assert len(mailed) == len(set(mailed))


async def test_hosts_of_a_site_come_in_one_message(
    bus: Client, base_settings: Settings, hook: Hook
) -> None:
    fleet = Fleet(bus)
    settings = alerts_settings(base_settings, "group_seconds = 3\n" + hook.toml())
    for number in range(14):
        await fleet.register(f"host-{number:02}", metadata={"site": "FRA"})
    await fleet.register("elsewhere", metadata={"site": "OSL"})
    async with running(settings):
        states = []
        for agent_id in ("elsewhere", *(f"host-{number:02}" for number in range(14))):
            state = storage_states.state(agent_id, 1, NOW, None)
            states.append(msgspec.structs.replace(state, answered=1))
        await storage_states.publish(bus, states)
        await until(lambda: len(hook.received) >= 2, lambda: len(hook.received))
    titles = sorted(received.body["title"] for received in hook.received)
    at = f"{NOW:%Y-%m-%d %H:%M} UTC"
    assert titles == [
        f"14 hosts of site FRA missing since {at}",
        f"elsewhere is missing since {at}",
    ]


async def test_what_is_refused_is_tried_again_and_shown(
    bus: Client, base_settings: Settings, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpuping.alerts.deliver.sender.FIRST_RETRY_SECONDS", 0.2)
    fleet = Fleet(bus)
    hook.refuse_with = 500
    settings = alerts_settings(base_settings, "group_seconds = 0\n" + hook.toml())
    client = FleetClient(bus, 1.0).alerts
    async with running(settings):
        await fleet.outcome("a", missed=True)
        await until(lambda: hook.refused >= 2, lambda: hook.refused)
        stats = await client.stats()
        assert (stats.waiting, stats.retrying, stats.failed) == (1, 1, 0)
        (shown,) = (await client.alerts(AlertsRequest())).notifications
        assert shown.error == "the webhook answered 500"
        hook.refuse_with = 302  # a redirect is not followed: it is a refusal
        before = hook.refused
        await until(lambda: hook.refused > before, lambda: hook.refused)
        hook.refuse_with = None
        await until(lambda: len(hook.received) == 1, lambda: hook.received)
    assert len({received.id for received in hook.received}) == 1


async def test_a_silence_holds_back_and_tells_what_is_still_wrong(
    bus: Client, base_settings: Settings, hook: Hook
) -> None:
    fleet = Fleet(bus)
    settings = alerts_settings(base_settings, "group_seconds = 0\n" + hook.toml())
    client = FleetClient(bus, 1.0).alerts
    async with running(settings) as alerts:
        made = await client.silence(
            SilenceRequest(match={"agent_id": "quiet-*"}, seconds=60, reason="works")
        )
        await fleet.outcome("quiet-1", missed=True)
        await fleet.outcome("quiet-2", missed=True)
        await fleet.outcome("quiet-2", verdict="good")
        await fleet.outcome("loud", missed=True)
        await until(lambda: len(hook.received) == 1, lambda: hook.received)
        await until(lambda: alerts.dispatcher.held == 1, lambda: alerts.dispatcher.held)
        assert [change["about"] for change in hook.changes] == ["loud"]
        await client.end_silence(EndSilenceRequest(silence_id=made.silence_id))
        await until(lambda: len(hook.received) == 2, lambda: hook.received)
        assert [change["about"] for change in hook.changes] == ["loud", "quiet-1"]
        with pytest.raises(RefusedError, match="no silence"):
            await client.end_silence(EndSilenceRequest(silence_id=made.silence_id))


async def test_what_is_larger_than_a_message_is_divided_or_cut(
    bus: Client, base_settings: Settings, hook: Hook
) -> None:
    """160 hosts with 50 long labels each go missing at once; a message of the bus has 1 MB."""
    fleet = Fleet(bus)
    settings = alerts_settings(base_settings, "group_seconds = 1\n" + hook.toml())
    client = FleetClient(bus, 1.0).alerts
    labels = {f"label-{number}": "x" * 128 for number in range(50)}
    match = {f"label-{number}": "y" * 200 for number in range(20)}
    names = [f"host-{number:03}" for number in range(160)]
    for name in names:
        await fleet.register(name, labels=labels)
    async with running(settings) as alerts:
        for name in names:
            await fleet.outcome(name, missed=True)
        for _ in range(endpoints.MOST_SILENCES):
            await client.silence(SilenceRequest(match=match, seconds=60, reason="works"))
        with pytest.raises(RefusedError, match="200 silences already"):
            await client.silence(SilenceRequest(match=match, seconds=60, reason="works"))
        stats = alerts.endpoints.stats
        await until(lambda: sum(stats().active.values()) == 160, lambda: stats().active)
        await until(lambda: len(hook.changes) == 160, lambda: len(hook.changes))
        listed = await client.alerts(AlertsRequest())
    assert listed.total == len(listed.active) == 160
    assert 0 < len(listed.silences) < endpoints.MOST_SILENCES


async def test_two_senders_tell_each_change_once(
    bus: Client, base_settings: Settings, hook: Hook
) -> None:
    fleet = Fleet(bus)
    settings = alerts_settings(base_settings, "group_seconds = 0\n" + hook.toml())
    async with running(settings), running(settings), running(settings):
        for number in range(20):
            await fleet.outcome(f"host-{number}", missed=True)
        await until(lambda: len(hook.changes) >= 20, lambda: len(hook.changes))
    told = [change["about"] for change in hook.changes]
    assert sorted(told) == sorted(f"host-{number}" for number in range(20))


async def test_what_happened_while_nobody_ran_is_told_at_the_start(
    bus: Client, base_settings: Settings, hook: Hook
) -> None:
    fleet = Fleet(bus)
    settings = alerts_settings(base_settings, "group_seconds = 0\n" + hook.toml())
    await fleet.outcome("old", missed=True)
    await fleet.outcome("old", verdict="good")
    await fleet.outcome("still", missed=True)
    async with running(settings) as alerts:
        # What was wrong before the first start and is not any more is nobody's concern.
        await until(lambda: len(hook.changes) == 1, lambda: hook.changes)
        await until(lambda: alerts.board.position is not None, lambda: alerts.board.position)
    await fleet.outcome("old", missed=True)
    await fleet.outcome("old", verdict="good")
    await fleet.outcome("still", missed=True)
    async with running(settings):
        await until(lambda: len(hook.changes) == 2, lambda: hook.changes)
    assert [change["about"] for change in hook.changes] == ["still", "old"]


async def test_an_incident_between_two_pings_is_told(
    bus: Client, base_settings: Settings, hook: Hook
) -> None:
    fleet = Fleet(bus)
    settings = alerts_settings(base_settings, "group_seconds = 0\n" + hook.toml())
    async with running(settings):
        at = NOW - timedelta(seconds=60)
        lost = Incident(
            gpu=GPU, state="down", reason="lost", since=at, until=at + timedelta(seconds=6)
        )
        await fleet.outcome("a", incidents=(lost,))
        await until(lambda: len(hook.changes) == 1, lambda: hook.changes)
    assert hook.changes[0]["kind"] == "happened"
    assert hook.changes[0]["labels"]["reason"] == "lost"
