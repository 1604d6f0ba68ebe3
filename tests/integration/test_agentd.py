"""A running agentd on a real bus: pings, looks, registration, a hung probe, a lost bus."""

import asyncio
import contextlib
import fcntl
import json
import os
import time
from contextlib import AsyncExitStack
from typing import Any

import msgspec
import pytest

from agentd import service
from agentd.check_loop import read_clocks
from agentd.ledger import records
from agentd.ledger.records import CountedUntil
from agentd.samples import GpuSample, Sample
from bus import clock
from bus.contract import subjects
from bus.contract.agent_answers import AgentHealth, GpuStatus
from bus.contract.messages import EARLIEST, PingRequest, UptimeReport, decode, encode
from bus.contract.questions import REMOVED_BY_OPERATOR, Agent, RegisterReply, RegisterRequest
from bus.errors import RefusedError, UnavailableError
from bus.transport import connection, embedded_server, micro_services
from bus.transport.micro_services import Endpoint
from tests.waiting import until

INTERVAL = 0.1
NOTHING_YET = (
    *("agent_url", "uptime_percent", "uptime_24h_percent", "next_ping_at", "last_ping_at"),
    *("last_answered_at", "last_response_ms", "connected"),
)
NONE_YET = (
    "consecutive_poor_uptime",
    "good_streak",
    "current_interval_minutes",
    "total_pings",
    "missed_pings",
)


class ScriptedProbe:
    """Says what the test says; `hang` makes a check that does not return."""

    simulated = True

    def __init__(self, *gpus: str) -> None:
        self.states = dict.fromkeys(gpus or ("GPU-a",), "up")
        self.failure: str | None = None
        self.error: Exception | None = None
        self.hang = asyncio.Event()
        self.hang.set()
        self.checked = asyncio.Condition()
        self.closed = False
        self.opens_slowly = False  # a hang is the library's opening; the GPUs are read after it

    async def check(self, expected: tuple[str, ...]) -> Sample:
        began = clock.boottime()
        await self.hang.wait()
        if self.opens_slowly:
            began = clock.boottime()
        async with self.checked:
            self.checked.notify_all()
        if self.error:
            raise self.error
        gpus = tuple(
            GpuSample(
                uuid=uuid,
                index=index,
                name="Scripted",
                state=state,
                reasons=() if state == "up" else ("ecc",),
            )
            for index, (uuid, state) in enumerate(self.states.items())
        )
        return Sample(at=began, gpus=gpus, failure=self.failure)

    async def details(self) -> list[dict[str, Any]]:
        await self.hang.wait()
        return [{"uuid": uuid, "temperature_celsius": 41} for uuid in self.states]

    async def close(self) -> None:
        self.closed = True


@pytest.fixture
def quick(base_settings):
    return msgspec.structs.replace(base_settings, AGENT_GPU_CHECK_INTERVAL_SECONDS=INTERVAL)


async def ping(bus, agent_id: str = "a-1", **fields: Any) -> UptimeReport:
    data = encode(PingRequest(**fields)) if fields else b""
    return decode(
        await micro_services.ask_raw(bus, subjects.ping(agent_id), data, who="agent"), UptimeReport
    )


def registry(bus, heard: list[tuple[str, RegisterRequest]], expected: tuple[str, ...] = ()):
    """What the scheduler does with a registration, as far as an agent can see."""

    async def register(request) -> RegisterReply:
        agent_id = subjects.last_token(request.subject)
        heard.append((agent_id, decode(request.data, RegisterRequest)))
        now = clock.utc_now()
        agent = Agent(
            **dict.fromkeys(NOTHING_YET),
            **dict.fromkeys(NONE_YET, 0),
            agent_id=agent_id,
            capabilities=(),
            metadata={},
            status="pending",
            registered_at=now,
            expected_gpus=expected,
        )
        return RegisterReply(agent=agent, created=True)

    return micro_services.serve(
        bus,
        subjects.SCHEDULER_SERVICE,
        "a registry",
        [Endpoint("register", subjects.REGISTER_ALL, register)],
    )


async def test_answers_as_soon_as_it_runs_and_windows_tile(bus, quick):
    probe = ScriptedProbe()
    async with service.running(quick, agent_id="a-1", probe=probe):
        first = await ping(bus, ping_id="1", nonce="n")
        assert (first.agent_id, first.ping_id, first.nonce) == ("a-1", "1", "n")
        assert first.gpu_available
        async with probe.checked:
            await probe.checked.wait()
        second = await ping(bus, ping_id="2", since_mark=first.window.mark)
        assert second.seconds.down == 0.0  # a busy machine may have missed a check of 0.1 s
        assert second.window.seconds == pytest.approx(
            (second.window.until - first.window.until).total_seconds(), abs=0.003
        )
    assert probe.closed


async def test_an_empty_request_is_a_look_that_changes_nothing(bus, quick):
    async with service.running(quick, agent_id="a-1", probe=ScriptedProbe()) as agent:
        counted = await ping(bus, ping_id="1")
        for _ in range(3):
            look = await ping(bus)
            assert abs((look.window.since - counted.window.until).total_seconds()) < 0.1
            assert look.ping_id is None
        assert agent.check_loop.ledger.counted_until == int(counted.window.mark.split(".")[1])


async def test_an_answer_leaves_when_what_it_counted_is_in_the_file(bus, quick):
    async with service.running(quick, agent_id="a-1", probe=ScriptedProbe()) as agent:
        for number in range(20):
            report = await ping(bus, ping_id=str(number))
            written, _ = records.read(agent.check_loop.store.path.read_bytes())
            position = int(report.window.mark.partition(".")[2])
            assert CountedUntil(position) in written


async def test_an_answer_waits_for_the_disk(bus, quick):
    """A full pipe stands in for a disk that takes its time."""
    async with service.running(quick, agent_id="a-1", probe=ScriptedProbe()) as agent:
        await ping(bus, ping_id="1")
        reading, writing = os.pipe()
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
        os.write(writing, bytes(4096))
        file = agent.check_loop.store._file
        disk = file._out
        file._out = writing
        try:
            answer = asyncio.create_task(ping(bus, ping_id="2"))
            done, _ = await asyncio.wait({answer}, timeout=0.5)
            assert not done
            await asyncio.to_thread(os.read, reading, 4096)
            assert (await answer).ping_id == "2"
        finally:
            os.close(reading)
            os.close(disk)


async def test_the_gpus_that_a_ping_expects_are_judged_from_then_on(bus, quick):
    async with service.running(quick, agent_id="a-1", probe=ScriptedProbe()) as agent:
        report = await ping(bus, ping_id="1", expected_gpus=("GPU-a", "GPU-gone"))
        states = {gpu.uuid: (gpu.state, gpu.reasons) for gpu in report.gpus}
        assert states == {"GPU-a": ("up", ()), "GPU-gone": ("down", ("missing",))}
        assert agent.check_loop.ledger.expected == ("GPU-a", "GPU-gone")
        await ping(bus, window_seconds=1.0, expected_gpus=("GPU-a",))  # a look changes nothing
        assert agent.check_loop.ledger.expected == ("GPU-a", "GPU-gone")


async def test_it_registers_when_its_first_look_has_ended(bus, quick):
    heard: list[tuple[str, RegisterRequest]] = []
    await registry(bus, heard)
    probe = ScriptedProbe()
    probe.opens_slowly = True
    probe.hang.clear()
    async with AsyncExitStack() as stack:
        running = service.running(quick, agent_id="a-1", probe=probe)
        entering = asyncio.create_task(stack.enter_async_context(running))
        while True:  # it answers before it has looked, and says that it has not
            with contextlib.suppress(UnavailableError):
                early = await ping(bus)
                break
            await asyncio.sleep(0.02)
        assert early.failure == "starting"
        assert early.gpu_available is False
        assert heard == []
        waiting = asyncio.create_task(ping(bus, ping_id="1", timeout_seconds=10.0))
        done, _ = await asyncio.wait({waiting}, timeout=0.5)
        assert not done
        assert heard == []
        probe.hang.set()
        report = await waiting
        assert report.failure is None
        assert {gpu.state for gpu in report.gpus} == {"up"}
        agent = await entering
        async with asyncio.timeout(60):
            await agent.registered.wait()
        assert [agent_id for agent_id, _ in heard] == ["a-1"]


async def test_a_ping_waits_for_the_first_look_no_longer_than_its_time_out(bus, quick):
    probe = ScriptedProbe()
    probe.hang.clear()
    async with AsyncExitStack() as stack:
        running = service.running(quick, agent_id="a-1", probe=probe)
        entering = asyncio.create_task(stack.enter_async_context(running))
        while True:
            with contextlib.suppress(UnavailableError):
                await ping(bus)
                break
            await asyncio.sleep(0.02)
        began = time.monotonic()
        report = await ping(bus, ping_id="1", timeout_seconds=1.0)
        assert time.monotonic() - began > 0.7
        assert report.failure == "starting"
        assert report.seconds.up == 0.0
        probe.hang.set()
        await entering


@pytest.mark.parametrize("failure", ["driver-mismatch", "library-absent", "permission"])
async def test_nothing_looked_at_is_told_with_its_reason(bus, quick, failure):
    probe = ScriptedProbe()
    probe.states.clear()
    probe.failure = failure
    async with service.running(quick, agent_id="a-1", probe=probe):
        report = await ping(bus, ping_id="1")
        assert (report.failure, report.gpus, report.gpu_available) == (failure, (), False)
        assert failure in {incident.reason for incident in report.incidents}
        status = await micro_services.ask(
            bus, subjects.gpu_status("a-1"), None, GpuStatus, who="agent"
        )
        assert status.failure == failure
        health = await micro_services.ask(
            bus, subjects.health("a-1"), None, AgentHealth, who="agent"
        )
        assert (health.status, health.failure) == ("failed", failure)


async def test_a_host_without_gpus_is_told_from_one_that_cannot_look(bus, quick):
    probe = ScriptedProbe()
    probe.states.clear()
    async with service.running(quick, agent_id="a-1", probe=probe):
        report = await ping(bus, ping_id="1")
        assert (report.failure, report.gpus, report.gpu_available) == (None, (), False)


async def test_a_report_says_that_its_gpus_are_simulated(bus, quick):
    probe = ScriptedProbe()
    async with service.running(quick, agent_id="a-1", probe=probe):
        assert (await ping(bus)).simulated is True
        probe.simulated = False
        assert (await ping(bus)).simulated is False


async def test_an_agent_that_the_operator_removed_says_so_once(bus, quick, capsys):
    asked = asyncio.Condition()
    count = 0

    async def refuse(_request) -> RegisterReply:
        nonlocal count
        async with asked:
            count += 1
            asked.notify_all()
        raise RefusedError(REMOVED_BY_OPERATOR, "a-1 was removed by the operator")

    await micro_services.serve(
        bus,
        subjects.SCHEDULER_SERVICE,
        "a registry",
        [Endpoint("register", subjects.REGISTER_ALL, refuse)],
    )
    async with service.running(quick, agent_id="a-1", probe=ScriptedProbe()) as agent:
        async with asyncio.timeout(60), asked:
            await asked.wait_for(lambda: count)
        await until(lambda: agent.check_loop.ledger.progress.checks > 20)  # 2 s
        assert count == 1
        assert (await ping(bus)).gpu_available  # it still answers
    assert capsys.readouterr().out.count("agent_removed_by_operator") == 1


async def test_a_duplicate_ping_gets_the_same_bytes(bus, quick):
    probe = ScriptedProbe()
    async with service.running(quick, agent_id="a-1", probe=probe):
        request = encode(PingRequest(ping_id="same"))
        first = await micro_services.ask_raw(bus, subjects.ping("a-1"), request, who="agent")
        async with probe.checked:
            await probe.checked.wait()
        again = await micro_services.ask_raw(bus, subjects.ping("a-1"), request, who="agent")
        other = await micro_services.ask_raw(
            bus, subjects.ping("a-1"), encode(PingRequest(ping_id="other")), who="agent"
        )
        assert first == again
        assert first != other


@pytest.mark.parametrize(
    "garbage", [b"{", b"[]", b'{"ping_id": 5}', b'{"window_seconds": -1}', b"\xff\xfe", b"null"]
)
async def test_garbage_is_refused_and_the_next_ping_is_answered(bus, quick, garbage):
    async with service.running(quick, agent_id="a-1", probe=ScriptedProbe()):
        answer = await bus.request(subjects.ping("a-1"), garbage, timeout=20)
        assert answer.headers["Nats-Service-Error-Code"] == "400"
        assert (await ping(bus)).agent_id == "a-1"


async def test_the_wire_is_tolerant_and_extremes_do_no_harm(bus, quick):
    async with service.running(quick, agent_id="a-1", probe=ScriptedProbe()):
        wild = {
            "window_seconds": 1e300,
            "of_the_future": {"x": 1},
            "excused": [
                {"since": "0001-01-01T00:00:00Z", "until": "9999-12-31T23:59:59Z"},
                {"since": "2026-01-01T00:00:00", "until": "2026-01-02T00:00:00"},
            ],
        }
        answer = await micro_services.ask_raw(
            bus, subjects.ping("a-1"), json.dumps(wild).encode(), who="agent"
        )
        report = decode(answer, UptimeReport)
        assert report.uptime_percent is None
        assert report.seconds.excused == report.window.seconds
        assert report.window.since == EARLIEST  # a label; the seconds are as many as were asked for


async def test_a_healthy_report_of_one_gpu_is_small(bus, quick):
    async with service.running(quick, agent_id="agent-001", probe=ScriptedProbe("GPU-" + "0" * 36)):
        request = PingRequest(ping_id="0" * 32, nonce="1" * 32)
        answer = await micro_services.ask_raw(
            bus, subjects.ping("agent-001"), encode(request), who="agent"
        )
        assert len(answer) < 1000


async def test_registers_itself_and_is_told_which_gpus_are_expected(bus, quick):
    heard: list[tuple[str, RegisterRequest]] = []
    await registry(bus, heard, expected=("GPU-a", "GPU-gone"))
    async with service.running(
        quick, agent_id="a-1", probe=ScriptedProbe(), metadata={"rack": 7}
    ) as agent:
        async with asyncio.timeout(60):
            await agent.registered.wait()
        ((agent_id, request),) = heard
        assert (agent_id, request.metadata) == ("a-1", {"rack": 7, "simulated": True})
        ledger_id, _, position = request.mark.partition(".")
        assert ledger_id == agent.check_loop.ledger.created.ledger
        assert 0 <= int(position) <= agent.check_loop.ledger.position(read_clocks())
        await until(lambda: "GPU-gone" in agent.check_loop.ledger.timelines)
        report = await ping(bus)
        assert {gpu.uuid: (gpu.state, gpu.reasons) for gpu in report.gpus}["GPU-gone"] == (
            "down",
            ("missing",),
        )
    async with service.running(quick, agent_id="a-1", probe=ScriptedProbe()) as agent:
        assert agent.check_loop.ledger.expected == (
            "GPU-a",
            "GPU-gone",
        )  # remembered, before any registry is heard


async def test_registration_is_asked_again_until_somebody_answers(bus, quick):
    heard: list[tuple[str, RegisterRequest]] = []
    async with service.running(quick, agent_id="a-1", probe=ScriptedProbe()) as agent:
        assert not agent.registered.is_set()
        await registry(bus, heard)
        async with asyncio.timeout(60):
            await agent.registered.wait()


async def test_registers_again_and_answers_after_the_bus_came_back(bus, quick, nats_server):
    heard: list[tuple[str, RegisterRequest]] = []
    await registry(bus, heard)
    async with service.running(quick, agent_id="a-1", probe=ScriptedProbe()) as agent:
        async with asyncio.timeout(60):
            await agent.registered.wait()
        mark = (await ping(bus, ping_id="1")).window.mark
        checks = agent.check_loop.ledger.progress.checks
        nats_server.process.kill()
        await until(lambda: len(heard) >= 2)
        report = await ping(bus, ping_id="2", since_mark=mark)
        assert report.checks > checks
        assert report.uptime_percent > 0


async def test_runs_without_a_bus_and_answers_once_there_is_one(
    tmp_path, base_settings, nats_server
):
    port = nats_server.port
    await nats_server.stop()
    quick = msgspec.structs.replace(base_settings, AGENT_GPU_CHECK_INTERVAL_SECONDS=INTERVAL)
    async with service.running(quick, agent_id="a-1", probe=ScriptedProbe()) as agent:
        assert not agent.bus_session.serving.is_set()
        assert agent.responder.health().bus.connected is False
        async with embedded_server.running(tmp_path / "later", port=port), asyncio.timeout(60):
            await agent.bus_session.serving.wait()
            async with connection.connected(quick, "test") as client:
                assert (await ping(client)).uptime_percent > 0


async def test_without_a_bus_it_stops_at_once(base_settings):
    nowhere = msgspec.structs.replace(base_settings, NATS_URL="nats://127.0.0.1:1")
    async with service.running(nowhere, agent_id="a-1", probe=ScriptedProbe()):
        began = time.monotonic()
    assert time.monotonic() - began < 20


async def test_a_hung_check_delays_no_answer_and_no_exit(bus, quick):
    probe = ScriptedProbe()
    async with service.running(quick, agent_id="a-1", probe=probe) as agent:
        probe.hang.clear()
        await until(lambda: agent.responder.health().status == "stale")
        report = await ping(bus)
        assert report.gpus[0].state == "unknown"
        assert not report.gpu_available
        began = time.monotonic()
    assert time.monotonic() - began < 30


async def test_a_probe_that_says_hung_is_down_hung(bus, quick):
    probe = ScriptedProbe()
    async with service.running(quick, agent_id="a-1", probe=probe) as agent:
        probe.states.clear()
        probe.failure = "hung"
        await until(lambda: agent.check_loop.ledger.condition_at("GPU-a", 0).state == "down")
        report = await ping(bus)
        assert (report.gpus[0].state, report.gpus[0].reasons) == ("down", ("hung",))


async def test_a_probe_that_breaks_is_unknown_and_comes_back(bus, quick):
    probe = ScriptedProbe()
    async with service.running(quick, agent_id="a-1", probe=probe) as agent:
        probe.error = RuntimeError("the child died")
        await until(lambda: agent.check_loop.dropped >= 3)
        assert (await ping(bus)).gpus[0].state == "unknown"
        probe.error = None
        await until(lambda: agent.responder.health().status == "ok")
        assert (await ping(bus)).gpus[0].state == "up"


async def test_gpu_status_joins_the_ledger_with_the_driver(bus, quick):
    probe = ScriptedProbe("GPU-a", "GPU-b")
    probe.states["GPU-b"] = "degraded"
    async with service.running(quick, agent_id="a-1", probe=probe):
        answer = await micro_services.ask(
            bus, subjects.gpu_status("a-1"), None, GpuStatus, who="agent"
        )
        assert [gpu["state"] for gpu in answer.gpus] == ["up", "degraded"]
        assert answer.gpus[1] == {
            "uuid": "GPU-b",
            "index": 1,
            "name": "Scripted",
            "state": "degraded",
            "reasons": ["ecc"],
            "expected": True,
            "temperature_celsius": 41,
        }
        probe.hang.clear()
        answer = await micro_services.ask(
            bus, subjects.gpu_status("a-1"), None, GpuStatus, who="agent"
        )
        assert "within" in (answer.details_error or "")
        assert [gpu["uuid"] for gpu in answer.gpus] == ["GPU-a", "GPU-b"]


async def test_health_tells_of_the_daemon_itself(bus, quick):
    async with service.running(quick, agent_id="a-1", probe=ScriptedProbe()) as agent:
        await until(lambda: agent.check_loop.store.bytes > 0)
        health = await micro_services.ask(
            bus, subjects.health("a-1"), None, AgentHealth, who="agent"
        )
        assert health.status == "ok"
        assert health.bus.connected
        assert not health.bus.registered
        assert health.ledger.file_bytes > 0
        assert health.ledger.trouble is None
        assert health.last_sample_age_seconds < 30
        assert health.boot_id == clock.boot_id()
        assert health.expected_gpus == ("GPU-a",)


async def test_a_look_is_a_look_whatever_it_says(bus, quick):
    async with service.running(quick, agent_id="a-1", probe=ScriptedProbe()):
        body = encode(PingRequest(ping_id="p-1", nonce="n", window_seconds=1.0))
        data = await micro_services.ask_raw(bus, subjects.look("a-1"), body, who="agent")
        report = decode(data, UptimeReport)
    assert report.ping_id is None
    assert report.nonce is None


async def test_is_a_nats_micro_service(bus, quick):
    async with service.running(quick, agent_id="a-1", probe=ScriptedProbe()):
        answer = json.loads(
            (await bus.request(f"$SRV.INFO.{subjects.AGENTD_SERVICE}", b"", timeout=20)).data
        )
        assert {endpoint["subject"] for endpoint in answer["endpoints"]} == {
            subjects.ping("a-1"),
            subjects.look("a-1"),
            subjects.gpu_status("a-1"),
            subjects.health("a-1"),
        }


async def test_its_connection_can_be_pinned_to_its_id(bus, quick):
    registrations = await bus.subscribe(subjects.REGISTER_ALL)
    async with service.running(quick, agent_id="a-1", probe=ScriptedProbe()) as agent:
        asked = await registrations.next_msg(60)
        assert asked.reply.startswith(subjects.inbox_prefix("a-1") + ".")
        assert agent.bus_session._client.options["name"] == subjects.agent_connection("a-1")


async def test_a_hundred_agents_live_in_one_process(bus, base_settings):
    calm = msgspec.structs.replace(base_settings, AGENT_GPU_CHECK_INTERVAL_SECONDS=2.0)
    async with asyncio.timeout(120), AsyncExitStack() as stack:
        for n in range(100):
            await stack.enter_async_context(
                service.running(calm, agent_id=f"sim-{n:03}", probe=ScriptedProbe())
            )
        reports = await asyncio.gather(*(ping(bus, f"sim-{n:03}", ping_id="1") for n in range(100)))
        assert {report.agent_id for report in reports} == {f"sim-{n:03}" for n in range(100)}
        assert len({report.session_id for report in reports}) == 100


async def test_a_host_of_the_bus_that_nobody_knows_does_not_end_the_ledger(base_settings, capsys):
    odd = msgspec.structs.replace(
        base_settings,
        NATS_URL="nats://[::1%nowhere]:4222",
        AGENT_GPU_CHECK_INTERVAL_SECONDS=INTERVAL,
    )
    async with service.running(odd, agent_id="a-1", probe=ScriptedProbe()) as agent:
        checks = agent.check_loop.ledger.progress.checks
        await until(
            lambda: agent.check_loop.ledger.progress.checks > checks + 5
        )  # the bus is tried a second time meanwhile
    assert capsys.readouterr().out.count("bus_connect_timed_out") == 1


async def test_an_impossible_id_is_refused(quick):
    with pytest.raises(Exception, match="not valid"):
        async with service.running(quick, agent_id="a.b", probe=ScriptedProbe()):
            pass


async def test_the_bus_client_is_closed_on_the_way_out(bus, quick):
    async with service.running(quick, agent_id="a-1", probe=ScriptedProbe()) as agent:
        client = agent.bus_session._client
    assert isinstance(client, connection.Client)
    assert client.is_closed
