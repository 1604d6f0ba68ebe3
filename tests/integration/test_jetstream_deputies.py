"""JetStream as a deputy: it answers to whatever reply subject a request names, with its own rights.

Every role on a real server asks it everything that it may, with every reply subject that could do
harm. Roles in an account of their own can cause nothing that they may not publish themselves; those
in the fleet's account can, and the table in docs/security.md says so.
"""

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bus import settings
from bus.contract import subjects
from bus.contract.consumers import ConsumerConfig, ConsumerRequest
from bus.contract.messages import encode
from bus.errors import RefusedError
from bus.identity import accounts
from bus.identity.roles import ROLES, RoleName
from bus.transport import connection, layout
from bus.transport.consumers import making
from bus.transport.micro_services import Endpoint, serve
from scheduler.consumer_endpoints import ConsumerEndpoints
from tests.identity import IdentityServer, RoleClient, any_matches, joined
from tests.ports import free_port
from tests.waiting import until_answered

OWN, OTHER = "agent-a", "agent-b"
STREAMS = ("KV_gpuping", "KV_gpuping_alerts", "GPUPING_HISTORY", "GPUPING_AUDIT")
API = "$JS.API"
KEYS = (
    f"$KV.gpuping.state.{OWN}",
    f"$KV.gpuping.agent.{OWN}",
    f"$KV.gpuping.timer.{OWN}",
    f"$KV.gpuping.due.{OWN}",
    f"$KV.gpuping.host.{OWN}",
    "$KV.gpuping.enrolment.00ff",
    "$KV.gpuping_alerts.position",
    "gpuping.audit.remove",
)
COMMANDS = (
    *(f"{API}.STREAM.{verb}.{stream}" for verb in ("DELETE", "PURGE") for stream in STREAMS),
    f"{API}.CONSUMER.DELETE.KV_gpuping.scheduler",
    f"{API}.CONSUMER.DELETE.GPUPING_HISTORY.reader",
)
QUESTIONS = (
    f"gpuping.registry.remove.{OTHER}",
    f"gpuping.scheduler.ping.{OWN}",
    "gpuping.enrolment.new",
    f"gpuping.ping.{OWN}",
)


@pytest.fixture
async def server(tmp_path: Path):
    port = free_port()
    server = IdentityServer(tmp_path, port)
    await server.start()
    yield server
    server.kill()


def role_client(server: IdentityServer, role: RoleName, name: str | None = None) -> Any:
    name = name or f"_{role}"
    path = server.folder / f"{name}.creds"
    if not path.exists():
        server.authority.issue(role, name, path)
    return joined(server.url, f"_INBOX.{name}", user_credentials=str(path))


def role_settings(server: IdentityServer, role: RoleName) -> settings.Settings:
    path = server.folder / f"{role}.creds"
    server.authority.issue(role, f"_{role}", path)
    return settings.load({}, NATS_URL=server.url, NATS_CREDS=str(path))


async def lay_out(server: IdentityServer, scheduler: RoleClient) -> None:
    """The streams, a message under each key, and readers with messages left to deliver."""
    chosen = role_settings(server, "layout")
    async with connection.connected(chosen, "layout", inbox_prefix="_INBOX._layout") as client:
        await layout.ensure(client, chosen, grow=True)
    for key in KEYS:
        if key.startswith("$KV.gpuping."):
            await scheduler.nc.request(key, b"kept", timeout=30)
    # The server follows the bucket on its own.
    await until_answered(lambda: has(scheduler, "GPUPING_HISTORY", f"gpuping.history.{OWN}"))
    for stream in ("KV_gpuping", "GPUPING_HISTORY"):
        config = {"durable_name": "reader", "ack_policy": "none"}
        body = json.dumps({"stream_name": stream, "config": config}).encode()
        subject = f"{API}.CONSUMER.DURABLE.CREATE.{stream}.reader"
        answer = json.loads((await scheduler.nc.request(subject, body, timeout=30)).data)
        assert "error" not in answer


async def has(client: RoleClient, stream: str, subject: str) -> bool:
    """Whether a stream has a message under a subject."""
    asked = json.dumps({"last_by_subj": subject}).encode()
    reply = await client.nc.request(f"{API}.STREAM.MSG.GET.{stream}", asked, timeout=30)
    return "message" in json.loads(reply.data)


def questions_of(role: RoleName) -> list[tuple[str, bytes]]:
    """Everything that makes JetStream answer and that the role may ask, with a body that counts."""
    asked = []
    for pattern in ROLES[role].publish:
        if not pattern.startswith((API, "$KV.", "gpuping.audit.", "$JS.ACK.")):
            continue
        subject = pattern
        if ".DIRECT.GET." in pattern:
            subject = pattern.replace(">", f"$KV.gpuping.state.{OWN}")
        elif "$KV." in pattern or "audit" in pattern:
            subject = pattern.replace("*", "deputy").replace(">", "deputy")
        elif pattern.startswith("$JS.ACK."):
            subject = pattern.replace(">", "reader.1.1.1.1700000000000000000.0")
        subject = subject.replace("*", "reader").replace(">", "reader")
        stream = "KV_gpuping" if "KV_gpuping" in subject else "GPUPING_HISTORY"
        body: dict[str, object] = {}
        if ".MSG.GET." in subject or subject.endswith(f"DIRECT.GET.{stream}"):
            last = f"$KV.gpuping.state.{OWN}"
            if stream == "GPUPING_HISTORY":
                last = f"gpuping.history.{OWN}"
            body = {"last_by_subj": last}
        elif ".MSG.NEXT." in subject:
            body = {"batch": 1, "no_wait": True}
        asked.append((subject, json.dumps(body).encode()))
    return asked


async def sequences(layout_client: RoleClient) -> dict[str, int]:
    """The last sequence under each key; of a stream that is gone, -1."""
    found = {}
    for key in KEYS:
        stream = "KV_gpuping"
        if key.startswith("$KV.gpuping_alerts."):
            stream = "KV_gpuping_alerts"
        if key.startswith("gpuping.audit."):
            stream = "GPUPING_AUDIT"
        body = json.dumps({"last_by_subj": key}).encode()
        reply = await layout_client.nc.request(f"{API}.STREAM.MSG.GET.{stream}", body, timeout=30)
        found[key] = json.loads(reply.data).get("message", {}).get("seq", 0)
    for stream in STREAMS:
        reply = await layout_client.nc.request(f"{API}.STREAM.INFO.{stream}", b"", timeout=30)
        state = json.loads(reply.data).get("state", {})
        found[f"whether {stream} is there"] = int("messages" in state)
        found[f"consumers of {stream}"] = state.get("consumer_count", -1)
    return found


@pytest.mark.parametrize("role", accounts.apart())
async def test_a_role_apart_has_jetstream_write_nothing_that_it_may_not_write(server, role) -> None:
    async with (
        role_client(server, "scheduler") as scheduler,
        role_client(server, "layout") as observer,
        role_client(server, "agent", OWN) as agent,
        role_client(server, role) as client,
    ):
        await lay_out(server, scheduler)
        heard: list[str] = []

        async def hear(message: Any) -> None:
            heard.append(message.subject)

        await agent.nc.subscribe(subjects.ping(OWN), cb=hear)
        await scheduler.nc.subscribe("gpuping.registry.>", cb=hear)
        await scheduler.nc.subscribe("gpuping.scheduler.>", cb=hear)
        await agent.settle()
        await scheduler.settle()
        before = await sequences(observer)
        for reply in (*KEYS, *COMMANDS, *QUESTIONS):
            for asked, body in questions_of(role):
                await client.nc.publish(asked, body, reply=reply)
        await client.settle()
        await client.nc.flush()
        after = await sequences(observer)
        await agent.settle()
        await scheduler.settle()
        may_publish = ROLES[role].publish
        wrong = []
        for what, sequence in before.items():
            if not any_matches(may_publish, "", what) and after[what] != sequence:
                wrong.append(f"{what}: {sequence} became {after[what]}")
        for subject in set(heard):
            if not any_matches(may_publish, "", subject):
                wrong.append(f"{subject} was asked")
        assert not wrong


@pytest.mark.parametrize("role", accounts.apart())
async def test_a_role_apart_reaches_no_other_key_by_the_headers_of_what_it_writes(
    server, role
) -> None:
    """`Nats-Rollup: all` empties a stream; a schedule has the server write to any of its subjects.

    With the right to publish to one key of the bucket, the enrolment service could do both.
    """
    at = datetime.fromtimestamp(time.time() + 1, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    tricks: list[dict[str, str]] = [{"Nats-Rollup": "all"}]
    for target in KEYS:
        tricks.append({"Nats-Schedule": f"@at {at}", "Nats-Schedule-Target": target})
    async with (
        role_client(server, "scheduler") as scheduler,
        role_client(server, "layout") as observer,
        role_client(server, role) as client,
    ):
        await lay_out(server, scheduler)
        before = await sequences(observer)
        own = [one for one in ROLES[role].publish if one.startswith(("$KV.", "gpuping.audit."))]
        for headers in tricks:
            for pattern in own:
                subject = pattern.replace("*", OWN).replace(">", OWN)
                await client.nc.publish(subject, b"forged", headers=headers)
        await client.settle()
        # A schedule for the same moment, of a role that may: when it has fired, all others had to.
        timer = {"Nats-Schedule": f"@at {at}", "Nats-Schedule-Target": "$KV.gpuping.due.control"}
        await scheduler.nc.publish("$KV.gpuping.timer.control", b"", headers=timer)
        await until_answered(lambda: has(scheduler, "KV_gpuping", "$KV.gpuping.due.control"))
        after = await sequences(observer)
        for what, sequence in before.items():
            if not any_matches(ROLES[role].publish, "", what):
                assert after[what] == sequence, what


@pytest.mark.parametrize("role", ["operator", "scheduler"])
async def test_a_role_in_the_fleets_account_can_have_jetstream_write_anywhere(server, role) -> None:
    """What docs/security.md admits: these are trusted."""
    async with (
        role_client(server, "scheduler") as scheduler,
        role_client(server, "layout") as observer,
        role_client(server, role) as client,
    ):
        await lay_out(server, scheduler)
        state = f"$KV.gpuping.state.{OWN}"
        before = await sequences(observer)
        body = json.dumps({"last_by_subj": state}).encode()
        await client.nc.publish(f"{API}.STREAM.MSG.GET.KV_gpuping", body, reply=state)
        await client.settle()
        after = await sequences(observer)
        assert after[state] > before[state]
        assert role not in accounts.apart()


async def test_storage_gets_a_consumer_from_the_scheduler_and_none_that_sends_unasked(
    server,
) -> None:
    async with (
        role_client(server, "scheduler") as scheduler,
        role_client(server, "layout") as observer,
    ):
        await lay_out(server, scheduler)
        chosen = role_settings(server, "scheduler")
        as_storage = role_settings(server, "storage")
        async with (
            connection.connected(chosen, "s", inbox_prefix="_INBOX._scheduler") as makes,
            connection.connected(as_storage, "st", inbox_prefix="_INBOX._storage") as storage,
        ):
            endpoint = ConsumerEndpoints(makes).all()[0]
            await serve(makes, subjects.SCHEDULER_SERVICE, "makes consumers", [endpoint])
            config = {"durable_name": "storage-1", "ack_policy": "all"}
            made = await making.make(storage, "GPUPING_HISTORY", config)
            assert made.name == "storage-1"
            assert made.num_pending == 1
            with pytest.raises(RefusedError):
                await making.make(storage, "KV_gpuping", config)
            asked = ConsumerRequest(
                stream="GPUPING_HISTORY", config=ConsumerConfig(durable_name="pushes")
            )
            forged = json.loads(encode(asked))
            forged["config"]["deliver_subject"] = f"$KV.gpuping.state.{OWN}"
            await storage.request(subjects.MAKE_CONSUMER, json.dumps(forged).encode(), timeout=30)
            info = f"{API}.CONSUMER.INFO.GPUPING_HISTORY.pushes"
            made_config = json.loads((await observer.nc.request(info, b"", timeout=30)).data)
            assert "deliver_subject" not in made_config["config"]


@pytest.mark.parametrize("asker", ["agent", "bootstrap", "operator"])
async def test_nobody_has_a_service_write_by_the_reply_subject_of_a_question(server, asker) -> None:
    """Answers to the fleet's account do not pass through an import that would put them anywhere.

    The service sees the reply subject as it was named, and drops the question.
    """
    name = {"agent": OWN, "bootstrap": "_enrol-1", "operator": "_operator"}[asker]
    asked = {
        "agent": subjects.renew(OWN),
        "bootstrap": subjects.REDEEM,
        "operator": subjects.NEW_ENROLMENT,
    }[asker]
    inbox = {"bootstrap": f"_INBOX._enrol.{name}"}.get(asker, f"_INBOX.{name}")
    path = server.folder / "asker.creds"
    server.authority.issue(asker, name, path)
    async with (
        role_client(server, "scheduler") as scheduler,
        role_client(server, "layout") as observer,
        joined(server.url, inbox, user_credentials=str(path)) as client,
        connection.connected(
            role_settings(server, "enrolment"), "e", inbox_prefix="_INBOX._enrolment"
        ) as enrolment,
    ):
        await lay_out(server, scheduler)
        answered: list[str] = []

        async def answer(request: Any) -> bytes:
            answered.append(request.subject)
            return b"answered"

        endpoints = [
            Endpoint("renew", subjects.RENEW_ALL, answer),
            Endpoint("redeem", subjects.REDEEM, answer),
            Endpoint("new", subjects.NEW_ENROLMENT, answer),
        ]
        await serve(enrolment, subjects.ENROLMENT_SERVICE, "answers", endpoints)
        before = await sequences(observer)
        for reply in (*KEYS, *COMMANDS, *QUESTIONS):
            await client.nc.publish(asked, b"", reply=reply)
        await client.settle()
        reply = await client.nc.request(asked, b"", timeout=30)
        assert reply.data == b"answered"
        await enrolment.flush()
        assert await sequences(observer) == before
        assert answered == [asked]
        assert enrolment.refused_reply_count == len((*KEYS, *COMMANDS, *QUESTIONS))
