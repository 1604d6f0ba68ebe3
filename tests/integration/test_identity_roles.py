"""Every role against every kind of subject, on a real server.

What the table grants is allowed, all else refused.
"""

import asyncio
import json

import nats.errors
import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from bus import settings
from bus.identity.roles import LOOK_PUBLISH, ROLES
from bus.transport import account_updates, connection, layout
from tests.identity import (
    IdentityServer,
    any_matches,
    each_subject,
    joined,
    may_hear,
    table_subjects,
)
from tests.ports import free_port

OWN = "agent-a"
OTHER = "agent-b"


@pytest.fixture
async def server(tmp_path):
    server = IdentityServer(tmp_path, free_port())
    await server.start()
    yield server
    server.kill()


@pytest.mark.parametrize("role_name", [name for name in ROLES if not ROLES[name].is_leaf])
async def test_a_role_may_do_what_the_table_grants_and_nothing_else(server, tmp_path, role_name):
    role = ROLES[role_name]
    name = OWN if role_name == "agent" else f"_{role_name}"
    path = tmp_path / "user.creds"
    server.authority.issue(role_name, name, path)
    tried = list(dict.fromkeys([*each_subject(OWN, OTHER), *table_subjects(OWN, OTHER)]))
    named = [subject for subject in tried if not set("*> ") & set(subject)]
    at_once = role.max_subscriptions if role.max_subscriptions > 0 else len(tried)
    async with joined(server.url, f"_INBOX.{name}", user_credentials=str(path)) as client:
        refused_to_hear = await client.refused_to_subscribe(tried, at_once)
        refused_to_say = await client.refused_to_publish(named)
        # nothing but what is counted here was said
        assert len(set(client.refused)) == len(refused_to_hear) + len(refused_to_say)
    granted_to_hear = {one for one in tried if may_hear(role.subscribe, name, one)}
    granted_to_say = {one for one in named if any_matches(role.publish, name, one)}
    assert granted_to_hear == set(tried) - refused_to_hear
    assert granted_to_say == set(named) - refused_to_say
    assert granted_to_hear | granted_to_say


async def test_whoever_has_no_credentials_may_look_and_nothing_else(server):
    wrong = []
    async with joined(server.url, "_INBOX") as client:
        for subject in each_subject(OWN, OTHER):
            if await client.may_subscribe(subject) != subject.startswith("_INBOX."):
                wrong.append(f"subscribe {subject}")
            if "*" in subject or ">" in subject:
                continue
            if await client.may_publish(subject) != any_matches(LOOK_PUBLISH, "", subject):
                wrong.append(f"publish {subject}")
    assert not wrong


async def test_nothing_that_answers_a_stranger_is_led_to_write_by_the_reply_subject(
    server, tmp_path
):
    """JetStream and an agent answer to whatever reply subject a request names."""
    for role_name, name in (("layout", "_layout"), ("scheduler", "_scheduler"), ("agent", OWN)):
        server.authority.issue(role_name, name, tmp_path / f"{role_name}.creds")
    layout_settings = settings.load(
        {}, NATS_URL=server.url, NATS_CREDS=str(tmp_path / "layout.creds")
    )
    async with connection.connected(
        layout_settings, "layout", inbox_prefix="_INBOX._layout"
    ) as client:
        await layout.ensure(client, layout_settings, grow=True)
    async with (
        joined(
            server.url, "_INBOX._scheduler", user_credentials=str(tmp_path / "scheduler.creds")
        ) as scheduler,
        joined(
            server.url, f"_INBOX.{OWN}", user_credentials=str(tmp_path / "agent.creds")
        ) as agent,
        joined(server.url, "_INBOX") as anybody,
    ):

        async def answer(message):
            await message.respond(b"")  # what deletes or purges, as a request of JetStream

        await agent.nc.subscribe(f"gpuping.look.{OWN}", cb=answer)
        await agent.settle()
        await scheduler.nc.request(f"$KV.gpuping.state.{OWN}", b'{"x":1}', timeout=30)
        get = "$JS.API.DIRECT.GET.KV_gpuping.$KV.gpuping.state"
        info_of_bucket = "$JS.API.STREAM.INFO.KV_gpuping"
        for asked in (info_of_bucket, f"{get}.{OWN}", f"{get}.none", f"gpuping.ping.{OWN}"):
            for reply in (
                "$JS.API.STREAM.DELETE.KV_gpuping",
                "$JS.API.STREAM.PURGE.KV_gpuping",
                f"$KV.gpuping.state.{OWN}",
                f"gpuping.registry.remove.{OWN}",
            ):
                await anybody.nc.publish(asked, b"", reply=reply)
                await anybody.settle()
                await anybody.nc.request(f"{get}.{OWN}", b"", timeout=30)  # answered after it
        info = await scheduler.nc.request(info_of_bucket, b"", timeout=30)
        state = json.loads(info.data)["state"]
        assert (state["messages"], state["last_seq"]) == (1, 1)
        kept = await anybody.nc.request(f"{get}.{OWN}", b"", timeout=30)
        assert kept.data == b'{"x":1}'


async def test_an_anonymous_ping_arrives_as_a_look_whatever_its_body(server, tmp_path):
    path = tmp_path / "agent.creds"
    server.authority.issue("agent", OWN, path)
    async with (
        joined(server.url, f"_INBOX.{OWN}", user_credentials=str(path)) as agent,
        joined(server.url, "_INBOX") as anybody,
    ):
        for subject in (f"gpuping.ping.{OWN}", f"gpuping.look.{OWN}"):

            async def answer(message, heard_on=subject):
                await message.respond(heard_on.encode())

            await agent.nc.subscribe(subject, cb=answer)
        await agent.settle()
        reply = await anybody.nc.request(f"gpuping.ping.{OWN}", b'{"ping_id":"x"}', timeout=30)
        assert reply.data == f"gpuping.look.{OWN}".encode()


async def test_what_is_refused_is_said_once_in_the_log(server, tmp_path):
    path = tmp_path / "agent.creds"
    server.authority.issue("agent", OWN, path)
    chosen = settings.load({}, NATS_URL=server.url, NATS_CREDS=str(path))
    with capture_logs() as logged:
        async with connection.connected(chosen, "test", inbox_prefix=f"_INBOX.{OWN}") as client:
            for _ in range(3):
                for other in ("b", "c"):
                    await client.publish(f"gpuping.registry.register.{other}", b"")
                    await client.flush()
    said = [entry["detail"] for entry in logged if entry["event"] == "bus_permission_denied"]
    assert len(said) == 2
    assert len(set(said)) == 2


async def test_credentials_that_the_bus_does_not_believe_are_said_once_with_what_to_do(
    server, tmp_path
):
    """Each attempt was: a refusal and the end of the connection are two errors in turn."""
    path = tmp_path / "agent.creds"
    server.authority.issue("agent", OWN, path, until=1)
    chosen = settings.load({}, NATS_URL=server.url, NATS_CREDS=str(path))
    with capture_logs() as logged, pytest.raises(TimeoutError):
        async with asyncio.timeout(3):
            await connection.connect(chosen, "test")
    said = [entry for entry in logged if entry["event"] == "bus_error_reported"]
    assert len({entry["detail"] for entry in said}) == len(said)
    (refused,) = (entry for entry in said if "Authorization Violation" in entry["detail"])
    assert "expired" in refused["action"]


async def test_services_of_before_go_on_until_their_earlier_keys_are_retired(tmp_path):
    """In an earlier version every service lived in the fleet's account."""
    server = IdentityServer(tmp_path, free_port())
    authority = server.authority
    authority._save(replace(authority.fleet, role_accounts={}))
    for role_name in ("storage", "scheduler"):
        authority.issue(role_name, f"_{role_name}", tmp_path / f"{role_name}.creds")
    authority.add_missing_roles()
    authority.issue("storage", "_storage", tmp_path / "new.creds")
    authority.issue("gateway", "_gateway", tmp_path / "gateway.creds")
    await server.start()
    chosen = settings.load(
        {}, NATS_URL=server.url, NATS_CREDS=str(authority.folder / "system.creds")
    )
    try:
        for name, is_retired in (("storage", False), ("new", False), ("new", True)):
            if is_retired:
                assert authority.retire("storage") == 1
                await account_updates.push(chosen, authority, ["storage"])
            async with (
                joined(
                    server.url, "_INBOX._storage", user_credentials=str(tmp_path / f"{name}.creds")
                ) as storage,
                joined(
                    server.url, "_INBOX._gateway", user_credentials=str(tmp_path / "gateway.creds")
                ) as gateway,
            ):

                async def answer(message):
                    await message.respond(b"answered")

                await storage.nc.subscribe("gpuping.storage.table", cb=answer)
                await storage.settle()
                if name == "storage":  # the gateway's import has the new account
                    continue
                reply = await gateway.nc.request("gpuping.storage.table", b"", timeout=30)
                assert reply.data == b"answered"
        with pytest.raises((nats.errors.Error, OSError)):
            async with joined(
                server.url, "_INBOX._storage", user_credentials=str(tmp_path / "storage.creds")
            ):
                pass
    finally:
        server.kill()
