"""Whoever asks chooses the reply subject.

No service and no agent may be led to write or delete by it.

A service may write the bucket. A question whose reply subject is a key of the bucket, or a call of
the JetStream API, would lend that right to whoever asks.
"""

import json
from contextlib import AsyncExitStack

import pytest

import agentd.service
import scheduler.service
import storage.service
from agentd.probe_selection import open_probe
from bus.contract import subjects
from bus.contract.agent_answers import AgentHealth
from bus.contract.questions import Agent, SchedulerStats, StorageStats
from bus.identity.authority import Authority
from bus.settings import Settings
from bus.transport import jetstream_api
from bus.transport.connection import Client
from bus.transport.jetstream_api import ErrorCode, JetStreamApiError
from bus.transport.micro_services import ask
from gpuping.enrolment import service as enrolment_service

VICTIM = "victim"
REPLIES = (
    f"$JS.API.STREAM.DELETE.{subjects.BUCKET_STREAM}",
    f"$JS.API.STREAM.PURGE.{subjects.BUCKET_STREAM}",
    subjects.agent_key(VICTIM),
    subjects.register(VICTIM),
    f"$JS.ACK.{subjects.BUCKET_STREAM}.scheduler.1.1.1.1.0",
)
BODIES = (b"", b"garbage", b"{}")


@pytest.fixture
async def system(bus: Client, base_settings: Settings, tmp_path):
    """Scheduler, storage, the enrolment service and an agent, on the bus."""
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(scheduler.service.running(base_settings))
        await stack.enter_async_context(storage.service.running(base_settings))
        authority = Authority.create(tmp_path / "authority")
        await stack.enter_async_context(enrolment_service.running(base_settings, authority))
        agent = await stack.enter_async_context(
            agentd.service.running(
                base_settings,
                agent_id="a-1",
                probe=open_probe(base_settings, "a-1", "healthy"),
                state_dir=tmp_path / "agent",
            )
        )
        await agent.registered.wait()
        yield


async def served_subjects(bus: Client) -> list[str]:
    """Every subject that a service or the agent answers on, micro service discovery included."""
    inbox = bus.new_inbox()
    subscription = await bus.subscribe(inbox)
    await bus.publish("$SRV.INFO", reply=inbox)
    infos = [json.loads((await subscription.next_msg(timeout=60)).data) for _ in range(4)]
    await subscription.unsubscribe()
    served = []
    for info in infos:
        for verb in ("PING", "INFO", "STATS"):
            served += [f"$SRV.{verb}", f"$SRV.{verb}.{info['name']}"]
            served.append(f"$SRV.{verb}.{info['name']}.{info['id']}")
        for endpoint in info["endpoints"]:
            served.append(endpoint["subject"].replace("*", "a-1"))
    return served


async def test_no_reply_subject_but_an_inbox_is_answered(system, bus: Client) -> None:
    served = await served_subjects(bus)
    assert subjects.ping("a-1") in served
    assert subjects.look("a-1") in served
    assert subjects.remove("a-1") in served
    assert subjects.NEW_ENROLMENT in served
    assert subjects.renew("a-1") in served
    wrongly_answered = []
    for subject in served:
        for reply in REPLIES:
            for body in BODIES:
                await bus.publish(subject, body, reply=reply)
        # An answer to this question comes after the answers to those before it.
        await bus.request(subjects.health("a-1"), b"", timeout=60)
        await bus.request(subjects.FLEET, b"", timeout=60)
        await bus.request(subjects.STORAGE_STATS, b"", timeout=60)
        await bus.request(subjects.micro_ping(subjects.ENROLMENT_SERVICE), b"", timeout=60)
        if await bucket_was_touched(bus):
            wrongly_answered.append(subject)
    assert not wrongly_answered
    still_there = await ask(bus, subjects.get("a-1"), None, Agent, who="the scheduler")
    assert still_there.status == "healthy" or still_there.total_pings == 0
    at_least = len(REPLIES) * len(BODIES)
    health = await ask(bus, subjects.health("a-1"), None, AgentHealth, who="the agent")
    assert health.bus.refused_replies >= at_least
    for subject, stats_type in (
        (subjects.STATS, SchedulerStats),
        (subjects.STORAGE_STATS, StorageStats),
    ):
        stats = await ask(bus, subject, None, stats_type, who="the service")
        assert stats.refused_replies >= at_least


async def bucket_was_touched(bus: Client) -> bool:
    try:
        await jetstream_api.call(bus, f"STREAM.INFO.{subjects.BUCKET_STREAM}")
        body = {"last_by_subj": subjects.agent_key(VICTIM)}
        await jetstream_api.call(bus, f"STREAM.MSG.GET.{subjects.BUCKET_STREAM}", body)
    except JetStreamApiError as error:
        return error.err_code != ErrorCode.MESSAGE_NOT_FOUND
    return True
