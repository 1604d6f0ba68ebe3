"""Signed, chained reports through a real scheduler: what counts, what is refused, what is kept."""

import asyncio
import json
import zlib
from collections.abc import Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from nats.aio.msg import Msg
from structlog.testing import capture_logs

import agentd.service
import scheduler.service
from agentd.messaging.enrolment import enroll, with_enrolment
from agentd.probe_selection import open_probe
from bus import settings
from bus.client.fleet_client import FleetClient
from bus.contract import subjects
from bus.contract.enrolment import (
    CredentialsReply,
    NewTokenReply,
    NewTokenRequest,
    RenewRequest,
)
from bus.contract.messages import (
    AgentEntry,
    AgentState,
    LateAnswer,
    Outcome,
    PingRequest,
    UptimeReport,
    decode,
    encode,
)
from bus.contract.questions import Ping, RegisterRequest
from bus.identity.host import HostIdentity
from bus.identity.keys import KeyKind, SigningKey
from bus.identity.signatures import GENESIS
from bus.identity.signed_report import HEADER, ReportSigner, parse, verify
from bus.transport import bucket, connection
from bus.transport.connection import Client
from bus.transport.micro_services import ask
from gpuping.client import own_server
from gpuping.client.own_server import OwnServer
from gpuping.enrolment import service as enrolment_service
from scheduler.cluster.peers import instance_of
from tests.agents import report
from tests.ports import free_port
from tests.registering import register
from tests.scheduler_processes import InnerScheduler
from tests.waiting import until, until_answered

FAST = {
    "PING_BASE_INTERVAL_MINUTES": "0.02",
    "PING_MAX_INTERVAL_HOURS": "0.001",
    "PING_RESPONSE_TIMEOUT_SECONDS": "4",
    "AGENT_GPU_CHECK_INTERVAL_SECONDS": "0.2",
}
Recorded = tuple[AgentState, dict[str, str]]


class World:
    """A server with identities, enrolment and a scheduler; `history` reads what was recorded."""

    def __init__(self, server: OwnServer, operator: Client) -> None:
        self.server = server
        self.operator = operator

    async def history(self, agent_id: str) -> list[Recorded]:
        """The states of the agent in the history, oldest first, each with its headers."""
        found: list[Recorded] = []
        stream = self.operator.jetstream()
        subscription = await stream.subscribe(
            f"{subjects.HISTORY_PREFIX}{agent_id}",
            stream=subjects.HISTORY_STREAM,
            ordered_consumer=True,
        )
        left = 1
        wait_seconds = 0.3  # for the first; there may be none yet
        try:
            while left > 0:
                message = await subscription.next_msg(timeout=wait_seconds)
                found.append((decode(message.data, AgentState), message.headers or {}))
                left = message.metadata.num_pending
                wait_seconds = 30.0
        except TimeoutError:
            assert not found, "the history is not read to its end"
        finally:
            await subscription.unsubscribe()
        return found

    async def put_back_state(self, agent_id: str, number: int) -> AgentState:
        """Makes the agent's state what it was after its ping `number`, as a backup would."""
        (state,) = [state for state, _ in await self.history(agent_id) if state.ping_seq == number]
        chosen = self.server.settings_of("scheduler")
        prefix = subjects.service_inbox("scheduler")
        async with connection.connected(chosen, "restore", inbox_prefix=prefix) as client:
            await client.jetstream().publish(subjects.state_key(agent_id), encode(state))
        return state

    async def until(
        self, agent_id: str, is_enough: Callable[[list[Recorded]], object]
    ) -> list[Recorded]:
        async with asyncio.timeout(60):
            while True:
                found = await self.history(agent_id)
                if is_enough(found):
                    return found
                await asyncio.sleep(0.1)  # the history is asked, and tells nobody


@asynccontextmanager
async def running_world(tmp_path: Path, **changes: str):
    chosen = settings.load({}, GPUPING_DATA_DIR=str(tmp_path / "data"), **(FAST | changes))
    async with own_server.running(chosen, free_port()) as server:
        authority = server.identities.authority
        async with (
            enrolment_service.running(server.settings_of("enrolment"), authority),
            connection.connected(
                server.settings_of("operator"),
                "test",
                inbox_prefix=subjects.service_inbox("operator"),
            ) as operator,
        ):
            yield World(server, operator)


class FakeHost:
    """An agent with credentials of its own that answers pings as it is told."""

    def __init__(self, client: Client, agent_id: str, identity: HostIdentity) -> None:
        self.client = client
        self.agent_id = agent_id
        self.identity = identity
        self.signer = ReportSigner(identity.fleet, identity.signing_key)
        self.forge: Callable[[PingRequest, bytes], list[tuple[bytes, dict[str, str]]]] | None = None

    def honest(self, request: PingRequest, data: bytes) -> tuple[bytes, dict[str, str]]:
        made = report(self.agent_id, request)
        payload = encode(made)
        return payload, {HEADER: self.signer.sign(request, data, made, payload)}

    async def answer(self, message: Msg) -> None:
        request = decode(message.data, PingRequest)
        answers = [self.honest(request, message.data)]
        if self.forge is not None:
            answers = self.forge(request, message.data)
        for payload, headers in answers:
            await self.client.publish(message.reply, payload, headers=headers or None)


@asynccontextmanager
async def fake_host(world: World, tmp_path: Path, agent_id: str, *, with_keys: bool = True):
    chosen = world.server.settings_of_agent(agent_id)
    assert chosen.NATS_CREDS
    identity = HostIdentity.open(Path(chosen.NATS_CREDS), tmp_path / agent_id, agent_id)
    assert identity
    async with connection.connected(
        chosen, agent_id, inbox_prefix=subjects.inbox_prefix(agent_id)
    ) as client:
        fake = FakeHost(client, agent_id, identity)
        await client.subscribe(subjects.ping(agent_id), cb=fake.answer)
        if with_keys:
            renew = RenewRequest(proof=identity.proof(agent_id))
            await ask(client, subjects.renew(agent_id), renew, CredentialsReply, who="enrolment")
        await register(client, agent_id)
        yield fake


async def test_every_report_follows_the_one_recorded_before_it_across_schedulers_and_restarts(
    tmp_path: Path,
) -> None:
    async with running_world(tmp_path) as world:
        chosen = world.server.settings_of_agent("a-1")
        probe = open_probe(chosen, "a-1", "healthy")
        async with agentd.service.running(
            chosen, agent_id="a-1", probe=probe, state_dir=tmp_path / "a-1"
        ):
            of_scheduler = world.server.settings_of("scheduler")
            async with scheduler.service.running(of_scheduler):
                await world.until("a-1", lambda h: _answered(h) >= 2)
            async with (  # both ask, and one of two answers is recorded
                scheduler.service.running(of_scheduler),
                scheduler.service.running(of_scheduler),
            ):
                await world.until("a-1", lambda h: _answered(h) >= 5)
            restored = await world.put_back_state("a-1", 2)
            async with scheduler.service.running(of_scheduler):
                found = await world.until("a-1", lambda h: len(h) >= 8)
    _check_restored(found, restored)
    found = found[: restored.ping_seq] + found[_first_after(found, restored) :]
    previous = GENESIS
    held_head = GENESIS
    for state, headers in found:
        if state.last.outcome != "answered":
            continue
        signature = parse(headers[HEADER])
        payload = bytes(state.last.report)
        checked = verify(signature, decode(payload, UptimeReport), payload)
        assert signature.previous == previous
        assert signature.seq == state.ping_seq
        assert signature.fleet == world.server.identities.authority.fleet.account
        previous = checked.record_hash
        assert state.report_hash == previous
        assert state.ledger_heads[0] == f"{signature.ledger}.{signature.head}"
        assert signature.extends == held_head
        held_head = state.ledger_heads[0]
    assert not _remarks(found)


def _first_after(history: list[Recorded], restored: AgentState) -> int:
    """Where the history goes on after a state was put back: where its number follows last."""
    numbers = [state.ping_seq for state, _ in history]
    return len(numbers) - 1 - numbers[::-1].index(restored.ping_seq + 1)


def _check_restored(history: list[Recorded], restored: AgentState) -> None:
    """After a restored backup the host goes on from the report that the state knows."""
    state, headers = history[_first_after(history, restored)]
    signature = parse(headers[HEADER])
    assert signature.previous == restored.report_hash
    assert signature.extends == restored.ledger_heads[0]
    assert state.last.outcome == "answered"


@pytest.mark.slow
async def test_a_signed_late_answer_is_heard_by_the_scheduler_that_came_after_the_asker(
    tmp_path: Path,
) -> None:
    """With the rights of a host and of a scheduler; nothing is known of the ping but its state."""
    kept: dict[int, tuple[str, bytes, dict[str, str]]] = {}
    async with running_world(
        tmp_path,
        PING_BASE_INTERVAL_MINUTES="60",
        PING_MAX_INTERVAL_HOURS="2",
        PING_RESPONSE_TIMEOUT_SECONDS="1",
    ) as world:
        asker, follower = (InnerScheduler(world.server.settings_of("scheduler")) for _ in range(2))
        fleet = FleetClient(world.operator, 30.0)
        await asker.start()
        async with fake_host(world, tmp_path, "a-1") as fake:

            def keep_back(request: PingRequest, data: bytes) -> list[tuple[bytes, dict[str, str]]]:
                assert request.seq
                assert request.ping_id
                reply = f"{subjects.ping_inbox(instance_of(request.ping_id))}.{request.ping_id}"
                kept[request.seq] = (reply, *fake.honest(request, data))
                return []

            async def pinged(number: int) -> Ping:
                async def asked() -> Ping | None:
                    ping = await fleet.ping_now("a-1")
                    return ping if ping.ping_seq == number else None

                return await until_answered(asked)

            async def is_recorded() -> bool:
                return await bucket.read(world.operator, key, LateAnswer) is not None

            key = subjects.late_key("a-1")
            assert (await pinged(1)).outcome == "answered"
            fake.forge = keep_back
            assert [(await pinged(number)).reason for number in (2, 3)] == ["timeout", "timeout"]
            fake.forge = None
            await asker.kill()
            await follower.start()
            await fleet.agent("a-1")  # its answer comes after its subscriptions
            reply, payload, headers = kept[3]
            await fake.client.publish(reply, payload, headers=headers)
            await until_answered(is_recorded)
            ping = await pinged(4)
        await follower.kill()
    assert (ping.outcome, ping.remarks) == ("answered", ())


LOST = """gpus = 1
[[event]]
at = 0.0
gpu = 0
state = "lost"
"""


async def test_a_ledger_that_was_edited_on_the_disk_is_noticed_at_the_next_report(
    tmp_path: Path,
) -> None:
    """Somebody makes up time of down time while agentd is stopped, and mends the checksums."""
    async with running_world(tmp_path) as world:
        chosen = world.server.settings_of_agent("a-1")
        (tmp_path / "lost.toml").write_text(LOST)
        folder = tmp_path / "a-1"

        def agent():
            probe = open_probe(chosen, "a-1", str(tmp_path / "lost.toml"))
            return agentd.service.running(chosen, agent_id="a-1", probe=probe, state_dir=folder)

        async with scheduler.service.running(world.server.settings_of("scheduler")):
            async with agent():
                before = await world.until("a-1", lambda h: _answered(h) >= 2)
            edited = _make_up_of_down(folder / "a-1.ledger")
            async with agent():
                found = await world.until(
                    "a-1", lambda h: h and "ledger_edited" in _remarks(h) and _is_answered(h[-1])
                )
    assert edited
    assert "ledger_edited" not in _remarks(before)
    ((state, headers),) = [one for one in found if "ledger_edited" in one[0].last.remarks]
    assert (state.last.outcome, state.last.reason) == ("missed", "bad_report")
    assert state.last.refused_report, "it is kept as evidence"
    signature = parse(headers[HEADER])
    payload = state.last.refused_report.encode()
    verify(signature, decode(payload, UptimeReport), payload)
    assert signature.extends == "broken"
    assert _remarks([found[-1]]) == [], "it is said once, and the chain goes on"
    assert found[-1][0].ledger_heads[1] == f"{signature.ledger}.{signature.head}"
    up = [one.last.seconds.up for one, _ in found if one.last.seconds]
    assert sum(up) == 0.0, "nothing of what was made up counts"


def _make_up_of_down(path: Path) -> int:
    """Edits every line with "down", and mends its checksum. Returns how many there were."""
    edited = 0
    lines = []
    for line in path.read_bytes().splitlines(keepends=True):
        sealed = line[9:-1]
        if b'"down"' in sealed:
            edited += 1
            sealed = sealed.replace(b'"down"', b'"up"')
        lines.append(b"%08x %b\n" % (zlib.crc32(sealed), sealed))
    path.write_bytes(b"".join(lines))
    return edited


def _remarks(history: list[Recorded]) -> list[str]:
    return [remark for state, _ in history for remark in state.last.remarks if remark != "unheard"]


def _is_answered(recorded: Recorded) -> bool:
    return recorded[0].last.outcome == "answered"


def _is_refused(history: list[Recorded], after: int) -> bool:
    """Whether the last is later than that number, and its report was kept as evidence.

    A busy machine excuses a ping now and then, and hears no report; or the history is not told in
    time, and looks empty.
    """
    if not history:
        return False
    state, _ = history[-1]
    return state.ping_seq > after and bool(state.last.refused_report)


def _judged(history: list[Recorded]) -> list[Outcome]:
    """The outcomes that were not excused for a stall of this machine."""
    return [state.last for state, _ in history if state.last.outcome != "excused"]


def _answers(history: list[Recorded]) -> list[Outcome]:
    """The outcomes for which the host was there."""
    return [last for last in _judged(history) if last.reason != "no_responders"]


def _answered(history: list[Recorded]) -> int:
    return sum(state.last.outcome == "answered" for state, _ in history)


async def test_what_is_not_signed_for_this_ping_is_missed_and_kept_with_its_reason(  # noqa: C901  # one function a forgery
    tmp_path: Path,
) -> None:
    # Each forged answer is followed by a wait for a right one, until the time is over.
    soon = {"PING_RESPONSE_TIMEOUT_SECONDS": "1", "PING_MAX_INTERVAL_HOURS": "0.00034"}
    async with running_world(tmp_path, **soon) as world:
        stranger = ReportSigner(
            world.server.identities.authority.fleet.account, SigningKey.generate(KeyKind.USER)
        )
        old: list[tuple[bytes, dict[str, str]]] = []
        async with (
            scheduler.service.running(world.server.settings_of("scheduler")),
            fake_host(world, tmp_path, "bad") as fake,
        ):

            def unsigned(request: PingRequest, data: bytes):
                return [(fake.honest(request, data)[0], {})]

            def with_another_key(request: PingRequest, data: bytes):
                payload, _ = fake.honest(request, data)
                made = decode(payload, UptimeReport)
                return [(payload, {HEADER: stranger.sign(request, data, made, payload)})]

            def changed(request: PingRequest, data: bytes):
                payload, headers = fake.honest(request, data)
                return [(payload.replace(b'"up"', b'"up" '), headers)]

            def sibling(request: PingRequest, data: bytes):
                forked = decode(
                    json.dumps(json.loads(data) | {"previous": "0" * 64}).encode(), PingRequest
                )
                return [fake.honest(forked, data)]

            foreign = ReportSigner("A" * 56, fake.identity.signing_key)

            def of_another_fleet(request: PingRequest, data: bytes):
                payload, _ = fake.honest(request, data)
                made = decode(payload, UptimeReport)
                return [(payload, {HEADER: foreign.sign(request, data, made, payload)})]

            def of_another_agent(request: PingRequest, data: bytes):
                made = report("other", request)
                payload = encode(made)
                return [(payload, {HEADER: fake.signer.sign(request, data, made, payload)})]

            def of_another_ledger(request: PingRequest, data: bytes):
                payload, _ = fake.honest(request, data)
                made = decode(payload, UptimeReport)
                extends = "0" * 64
                header = fake.signer.sign(request, data, made, payload, "0" * 64, extends)
                return [(payload, {HEADER: header})]

            def replayed(request: PingRequest, data: bytes):
                return old

            def remembers(request: PingRequest, data: bytes):
                old[:] = [fake.honest(request, data)]
                return old

            fake.forge = remembers
            history = await world.until("bad", lambda h: _answered(h) >= 2)
            for forge, reason in (
                (unsigned, "unsigned"),
                (with_another_key, "key_wrong"),
                (changed, "signature_wrong"),
                (sibling, "previous_wrong"),
                (of_another_fleet, "fleet_wrong"),
                (of_another_agent, "ping_wrong"),
                (of_another_ledger, "ledger_edited"),
                (replayed, "ping_wrong"),
            ):
                fake.forge = forge
                seen = history[-1][0].ping_seq + 1  # one may have been answered meanwhile
                history = await world.until("bad", lambda h, seen=seen: _is_refused(h, seen))
                last = history[-1][0].last
                assert (last.outcome, last.reason) == ("missed", "bad_report"), reason
                assert last.remarks == (reason,)


async def test_a_wrong_answer_does_not_end_a_ping_that_is_answered_rightly_in_time(
    tmp_path: Path,
) -> None:
    async with (
        running_world(tmp_path, PING_RESPONSE_TIMEOUT_SECONDS="20") as world,
        scheduler.service.running(world.server.settings_of("scheduler")),
        fake_host(world, tmp_path, "late") as fake,
    ):
        asked: list[bytes] = []

        def honest_when_asked_again(request: PingRequest, data: bytes):
            payload, headers = fake.honest(request, data)
            if data not in asked:
                asked.append(data)
                headers = {}
            return [(payload, headers)]

        fake.forge = honest_when_asked_again
        history = await world.until("late", lambda h: len(h) >= 1)
    assert [state.last.outcome for state, _ in history] == ["answered"]


async def test_a_ping_that_was_under_way_while_the_host_joined_anew_is_excused(
    tmp_path: Path,
) -> None:
    """Its answer has the new key, and the ping was sent for the earlier one."""
    async with (
        running_world(tmp_path, PING_RESPONSE_TIMEOUT_SECONDS="3") as world,
        scheduler.service.running(world.server.settings_of("scheduler")),
        fake_host(world, tmp_path, "anew") as fake,
    ):
        await world.until("anew", _answered)
        asked = asyncio.Event()

        def silent(_request: PingRequest, _data: bytes) -> list[tuple[bytes, dict[str, str]]]:
            asked.set()
            return []

        fake.forge = silent
        async with asyncio.timeout(30):
            await asked.wait()
        number = len(await world.history("anew"))
        async with _joined_anew(world, tmp_path / "second", "anew"):
            history = await world.until("anew", lambda h: _answered(h[number:]))
    outcomes = [(state.last.outcome, state.last.reason) for state, _ in history]
    assert outcomes[number] == ("excused", "joined_anew")
    assert "missed" not in [outcome for outcome, _ in outcomes]


@asynccontextmanager
async def _joined_anew(world: World, folder: Path, agent_id: str):
    """Another host takes the agent's place, as its operator wants."""
    new = NewTokenRequest(agent_id=agent_id)
    token = await ask(world.operator, subjects.NEW_ENROLMENT, new, NewTokenReply, who="enrolment")
    host = settings.load({}, GPUPING_DATA_DIR=str(folder), **FAST)
    await enroll(host, f"{token.token}@{token.address}")
    chosen = with_enrolment(host)
    probe = open_probe(chosen, agent_id, "healthy")
    async with agentd.service.running(
        chosen, agent_id=agent_id, probe=probe, state_dir=chosen.agent_state_dir
    ):
        yield


@pytest.mark.parametrize(
    ("is_required", "until", "is_believed"),
    [
        ("true", "2126-01-01T00:00:00Z", False),
        ("false", None, True),
        ("false", "2126-01-01T00:00:00Z", True),
        ("false", "2026-01-01T00:00:00Z", False),
    ],
)
async def test_a_host_without_a_key_is_believed_only_where_and_until_that_is_allowed(
    tmp_path: Path, is_required: str, until: str | None, is_believed: bool
) -> None:
    rules = {"GPUPING_REQUIRE_SIGNED": is_required}
    if until is not None:
        rules["GPUPING_UNSIGNED_UNTIL"] = until
    async with (
        running_world(tmp_path, **rules) as world,
        scheduler.service.running(world.server.settings_of("scheduler")) as running,
    ):
        # in the operator's name, for whom nobody waits
        await FleetClient(world.operator, 4.0).register("old", RegisterRequest())
        async with fake_host(world, tmp_path, "old", with_keys=False):
            history = await world.until("old", _answers)
        assert running.unsigned_hosts.are_believed == is_believed
    last = _answers(history)[0]
    if is_believed:
        assert last.outcome == "answered"
    else:
        assert (last.outcome, last.remarks) == ("missed", ("key_unknown",))


async def test_a_host_that_starts_before_enrolment_is_never_pinged_without_its_key(
    tmp_path: Path,
) -> None:
    """As with compose, whose containers start in any order."""
    chosen = settings.load({}, GPUPING_DATA_DIR=str(tmp_path / "data"), **FAST)
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(own_server.running(chosen, free_port()))
        operator = await stack.enter_async_context(
            connection.connected(
                server.settings_of("operator"),
                "test",
                inbox_prefix=subjects.service_inbox("operator"),
            )
        )
        world = World(server, operator)
        entries = await operator.jetstream().subscribe(
            subjects.agent_key("a-1"), stream=subjects.BUCKET_STREAM, ordered_consumer=True
        )
        await stack.enter_async_context(scheduler.service.running(server.settings_of("scheduler")))
        as_agent = server.settings_of_agent("a-1")
        probe = open_probe(as_agent, "a-1", "healthy")
        logs = stack.enter_context(capture_logs())
        await stack.enter_async_context(
            agentd.service.running(
                as_agent, agent_id="a-1", probe=probe, state_dir=tmp_path / "a-1"
            )
        )
        await until(lambda: "registration_failed" in [line["event"] for line in logs])
        enrolment = enrolment_service.running(
            server.settings_of("enrolment"), server.identities.authority
        )
        await stack.enter_async_context(enrolment)
        first = decode((await entries.next_msg(timeout=60)).data, AgentEntry)
        assert first.signing_key is not None
        history = await world.until("a-1", _judged)
    assert _judged(history)[0].outcome == "answered"
