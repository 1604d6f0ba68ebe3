"""The audit log: who registered, pinged and removed, as token, agent or user of the bus."""

import asyncio
import json

import msgspec
import pytest

from bus.client import audit
from bus.contract import subjects
from bus.contract.audit import AuditEntry, AuditPage
from bus.contract.messages import encode
from bus.contract.questions import RegisterReply, RegisterRequest
from bus.identity import tokens
from bus.settings import Settings
from bus.transport import connection, jetstream_api, layout
from bus.transport.jetstream_api import JetStreamApiError
from bus.transport.micro_services import ask, ask_raw
from scheduler import service as scheduler_service
from tests.acceptance import system
from tests.gateway_behind import agent, gateway_and_behind, ping, quick

AGENTS = "/ping-system/agents"


async def entries(client: connection.Client) -> list[AuditEntry]:
    """Oldest first."""
    page = await audit.read_page(client, 100)
    return list(reversed(page.entries))


async def test_changes_over_rest_are_recorded_with_token_address_before_and_after(
    base_settings: Settings, bus: connection.Client, tmp_path
):
    secret, token = tokens.create("ada", "admin")
    viewer_secret, viewer = tokens.create("eve", "operator")
    text = tokens.as_toml(token) + tokens.as_toml(viewer)
    (tmp_path / "tokens.toml").write_text(text)
    chosen = quick(base_settings, GPUPING_TOKENS_FILE=str(tmp_path / "tokens.toml"))
    ada = {"Authorization": f"Bearer {secret}"}
    async with gateway_and_behind(chosen) as (http, behind):
        behind.agents["a"] = agent("a", metadata={"rack": 1})
        behind.pings["a"] = [ping("a", 1)]
        body = {"agent_id": "a", "metadata": {"rack": 2}}
        assert (await http.post(f"{AGENTS}/register", json=body, headers=ada)).is_success
        assert (await http.post(f"{AGENTS}/a/ping", headers=ada)).is_success
        assert (await http.delete(f"{AGENTS}/a", headers=ada)).is_success

        answer = await http.get("/ping-system/audit", headers=ada)
        assert answer.status_code == 200
        page = msgspec.json.decode(answer.content, type=AuditPage)
        newest_first = [entry.action for entry in page.entries]
        assert newest_first == ["remove", "ping", "register"]
        assert {entry.actor for entry in page.entries} == {"token ada"}
        assert {entry.address for entry in page.entries} == {"127.0.0.1"}
        assert {entry.agent_id for entry in page.entries} == {"a"}
        registered = page.entries[2]
        assert registered.before is not None
        assert registered.before["metadata"] == {"rack": 1}
        assert registered.after is not None
        assert registered.after["metadata"] == {"rack": 2}

        first = await http.get("/ping-system/audit?limit=2", headers=ada)
        cursor = first.json()["next_cursor"]
        rest = await http.get(f"/ping-system/audit?limit=2&cursor={cursor}", headers=ada)
        assert [entry["action"] for entry in rest.json()["entries"]] == ["register"]
        assert rest.json()["next_cursor"] is None

        eve = {"Authorization": f"Bearer {viewer_secret}"}
        for path in ("/ping-system/audit", "/ping-system/audit/"):
            assert (await http.get(path, headers=eve)).status_code == 403


async def test_changes_over_the_bus_are_recorded_once_and_only_where_they_change_something(
    base_settings: Settings, bus: connection.Client
):
    async with scheduler_service.running(base_settings):
        prefix = subjects.inbox_prefix("own")
        async with connection.connected(base_settings, "own", inbox_prefix=prefix) as host:
            for rack in (7, 7, 8):
                # an agent cannot keep its own registration out of the log
                request = RegisterRequest(metadata={"rack": rack}, audited=True)
                subject = subjects.register("own")
                await ask(host, subject, request, RegisterReply, who="the scheduler")
        await ask_raw(bus, subjects.register("other"), b"{}", who="the scheduler")
        await ask_raw(bus, subjects.remove("own"), b"", who="the scheduler")
        large = encode(RegisterRequest(metadata={"text": "x" * 60_000}))
        await ask_raw(bus, subjects.register("other"), large, who="the scheduler")
        found = await entries(bus)
    assert [(entry.action, entry.actor, entry.agent_id) for entry in found] == [
        ("register", "agent own", "own"),
        ("register", "agent own", "own"),
        ("register", "user of the bus", "other"),
        ("remove", "user of the bus", "own"),
        ("register", "user of the bus", "other"),
    ]
    assert found[1].before == {"metadata": {"rack": 7}}
    assert found[1].after == {"metadata": {"rack": 8}}
    assert len(encode(found[4])) < 4096
    assert found[4].after is not None
    assert found[4].after["metadata"]["bytes"] > 60_000


async def test_a_host_that_changes_all_the_time_does_not_fill_the_log(
    base_settings: Settings, bus: connection.Client, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("scheduler.endpoints.OWN_ENTRIES_AT_ONCE", 3.0)
    async with scheduler_service.running(base_settings):
        prefix = subjects.inbox_prefix("own")
        async with connection.connected(base_settings, "own", inbox_prefix=prefix) as host:
            for rack in range(20):
                request = RegisterRequest(metadata={"rack": rack})
                await ask(host, subjects.register("own"), request, RegisterReply, who="scheduler")
        changed = encode(RegisterRequest(metadata={"rack": "by an operator"}))
        await ask_raw(bus, subjects.register("own"), changed, who="the scheduler")
        found = await entries(bus)
    assert [entry.actor for entry in found] == ["agent own"] * 3 + ["user of the bus"]
    assert [entry.left_out for entry in found] == [0, 0, 0, 17]


async def test_the_log_is_append_only(base_settings: Settings, bus: connection.Client):
    await audit.record(bus, "test", "somebody", after={"answer": 42})
    verb = f"STREAM.MSG.DELETE.{subjects.AUDIT_STREAM}"
    with pytest.raises(JetStreamApiError):
        await jetstream_api.call(bus, verb, {"seq": 1})
    with pytest.raises(JetStreamApiError):
        await jetstream_api.call(bus, f"STREAM.PURGE.{subjects.AUDIT_STREAM}")
    await layout.ensure(bus, base_settings)
    assert len(await entries(bus)) == 1


async def test_a_change_is_done_and_logged_where_the_log_cannot_be_written(
    bus: connection.Client, capsys
):
    await jetstream_api.call(bus, f"STREAM.DELETE.{subjects.AUDIT_STREAM}")
    await audit.record(bus, "test", "somebody", after={"answer": 42})
    assert "audit_record_failed" in capsys.readouterr().out


async def test_a_full_log_drops_its_beginning_and_the_command_says_so(bus: connection.Client):
    """As if the disk had room for a few entries only."""
    verb = f"STREAM.INFO.{subjects.AUDIT_STREAM}"
    config = (await jetstream_api.call(bus, verb))["config"]
    assert config["max_bytes"] == layout.AUDIT_BYTES
    tiny = config | {"max_bytes": 4096}
    await jetstream_api.call(bus, f"STREAM.UPDATE.{subjects.AUDIT_STREAM}", tiny)
    assert (await audit.read_page(bus, 100)).dropped == 0
    for number in range(40):
        await audit.record(bus, "test", "somebody", after={"number": number})
    page = await audit.read_page(bus, 100)
    assert page.entries[0].sequence == 40
    assert page.dropped == page.entries[-1].sequence - 1 > 10
    shown = await asyncio.to_thread(system.run, "audit", NATS_URL=bus.address)
    assert f"the log begins after entry {page.dropped}" in shown.stdout
    as_json = await asyncio.to_thread(system.run, "audit", "--json", NATS_URL=bus.address)
    assert json.loads(as_json.stdout)["dropped"] == page.dropped


async def test_a_log_of_before_is_bounded_and_keeps_what_it_has(
    base_settings: Settings, bus: connection.Client
):
    name = subjects.AUDIT_STREAM
    config = (await jetstream_api.call(bus, f"STREAM.INFO.{name}"))["config"]
    await jetstream_api.call(bus, f"STREAM.UPDATE.{name}", config | {"max_bytes": -1})
    await audit.record(bus, "test", "somebody", after={"answer": 42})
    (problem,) = await layout.inspect(bus, base_settings)
    assert problem == (f"{name} differs in max_bytes", "start")
    await layout.ensure(bus, base_settings)
    config = (await jetstream_api.call(bus, f"STREAM.INFO.{name}"))["config"]
    assert config["max_bytes"] == layout.AUDIT_BYTES
    assert len(await entries(bus)) == 1
    assert await layout.inspect(bus, base_settings) == []


async def test_a_log_that_is_larger_than_the_bound_stays_as_it_is(
    base_settings: Settings, bus: connection.Client, monkeypatch: pytest.MonkeyPatch
):
    name = subjects.AUDIT_STREAM
    config = (await jetstream_api.call(bus, f"STREAM.INFO.{name}"))["config"]
    await jetstream_api.call(bus, f"STREAM.UPDATE.{name}", config | {"max_bytes": -1})
    for number in range(5):
        await audit.record(bus, "test", "somebody", after={"number": number})
    monkeypatch.setattr(layout, "AUDIT_BYTES", 256)
    await layout.ensure(bus, base_settings)
    assert len(await entries(bus)) == 5
    (problem,) = await layout.inspect(bus, base_settings)
    assert "never lowered by itself" in problem.text
    assert problem.mended_by == "operator"
