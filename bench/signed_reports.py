"""What signed, chained reports and identities cost, in alternating runs with and without.

Two servers, one with identities and one open, each with a responder that stands in for all hosts
(it signs where hosts do, on the same cores). One scheduler at a time, on the one and the other in
turn: the highest rate, the CPU of a ping, and the CPU at 1,111 pings a second, which a million
agents make at an interval of 15 minutes. Besides the cost of one signature and of one check, and
the memory of what a scheduler holds for them.

At the highest rate more agents are due than can be pinged. At 1,111 a second each run has servers
and a fleet of its own, which is enrolled bit by bit over one interval while the scheduler runs: a
fleet that was due at once is due at once again an interval later, and nothing happens in between.
It lasts whole intervals, in which each agent is pinged as often as every other. A run whose pings
came in bursts all the same, on too busy a machine, is reported and left out.

    python -m bench.signed_reports quick
"""

import asyncio
import math
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from msgspec.structs import replace

from bench.fleet import enrol
from bench.processes import cpu_seconds, pid_of, python_module
from bench.responder import healthy
from bench.scheduler_throughput import IN_FLIGHT, history_messages
from bus import settings
from bus.contract.messages import AgentEntry, AgentState, Outcome, PingRequest, decode, encode
from bus.identity import claims, credentials
from bus.identity.keys import KeyKind, SigningKey
from bus.identity.signatures import request_hash
from bus.identity.signed_report import Expected, ReportSigner, check
from bus.transport import connection, embedded_server, layout
from bus.transport.connection import Client
from gpuping.client import own_server

FASTEST_SECONDS = 1.0  # the interval at which more is due than can be pinged
STEADY_RATE = 1_111.0  # pings a second
STEADY_TOLERANCE = 0.1  # of that rate; a run that is further off is left out
ENROLMENT_STEPS = 40  # in which a fleet is enrolled over one interval
SLICES = 8  # of a steady run; in the quietest one at least half of a slice's pings are made
GPUS = 8

QUICK: dict[str, Any] = {
    "agents": 8_000,
    "rounds": 1,
    "seconds": 4.0,
    "steady_agents": 3_000,
    "steady_seconds": 5.0,
}
FULL: dict[str, Any] = {
    "agents": 20_000,
    "rounds": 5,
    "seconds": 10.0,
    "steady_agents": 20_000,
    "steady_seconds": 15.0,
}


class World(NamedTuple):
    """A server with a responder for a fleet. `env` is for a scheduler on it.

    `signing_key`: with which the responder signs for every host.
    """

    client: Client
    env: dict[str, str]
    nats_pid: int
    responder_pid: int
    signing_key: str | None = None


class Rate(NamedTuple):
    """Pings a second, and the CPU of a ping in milliseconds. `by_slice`: pings of each eighth."""

    pings_per_second: float
    scheduler_ms: float
    nats_ms: float
    hosts_ms: float
    by_slice: tuple[int, ...] = ()

    @property
    def is_steady(self) -> bool:
        """Whether it was the rate that was wanted, and not the same in bursts."""
        off = abs(self.pings_per_second - STEADY_RATE)
        if off > STEADY_TOLERANCE * STEADY_RATE:
            return False
        mean = sum(self.by_slice) / SLICES
        return min(self.by_slice) >= mean / 2


@asynccontextmanager
async def open_world() -> AsyncIterator[World]:
    """A server without identities."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = await stack.enter_async_context(embedded_server.running(folder, port=0))
        config = settings.load({}, NATS_URL=server.url)
        client = await stack.enter_async_context(connection.connected(config, "bench"))
        await layout.ensure(client, config)
        responder = await stack.enter_async_context(python_module("bench.responder", server.url))
        yield World(client, {"NATS_URL": server.url}, pid_of(server), responder.pid)


@asynccontextmanager
async def signed_world() -> AsyncIterator[World]:
    """A server with identities, where every report must be signed."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        config = settings.load({}, GPUPING_DATA_DIR=str(folder), GPUPING_REQUIRE_SIGNED="true")
        server = await stack.enter_async_context(own_server.running(config, 0))
        creds = _everything(server, folder, "_bench")
        hosts = _everything(server, folder, "_hosts")
        key = SigningKey.generate(KeyKind.USER)
        seed = folder / "hosts.seed"
        credentials.write_secret(seed, key.seed)
        own = replace(server.settings, NATS_CREDS=str(creds))
        client = await stack.enter_async_context(connection.connected(own, "bench"))
        url = own.nats_url
        account = server.identities.authority.fleet.account
        responder = await stack.enter_async_context(
            python_module("bench.responder", url, str(hosts), account, str(seed))
        )
        of_scheduler = server.settings_of("scheduler")
        env = {
            "NATS_URL": url,
            "NATS_CREDS": str(of_scheduler.NATS_CREDS),
            "NATS_SYSTEM_CREDS": str(of_scheduler.NATS_SYSTEM_CREDS),
            "GPUPING_REQUIRE_SIGNED": "true",
        }
        yield World(client, env, _server_pid(folder), responder.pid, key.public)


def _everything(server: own_server.OwnServer, folder: Path, name: str) -> Path:
    """Credentials that may do everything: the bench is the whole fleet at once.

    The name begins with `_`, as those of services do. A scheduler would take two connections of any
    other name for two hosts of one agent, and ask again and again which of them answers.
    """
    authority = server.identities.authority.folder
    account = SigningKey.from_seed(credentials.read_secret(authority / "account.seed"))
    user = SigningKey.generate(KeyKind.USER)
    rights = {"type": "user", "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1}
    token = claims.encode(account, user.public, name, rights, now=int(time.time()))
    path = folder / f"{name}.creds"
    credentials.write_secret(path, credentials.to_text(token, user))
    return path


def _server_pid(folder: Path) -> int:
    """The nats-server that was started on this data dir."""
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            command = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if b"nats-server" in command and str(folder).encode() in command:
            return int(process.name)
    raise RuntimeError(f"no nats-server runs on {folder}")


async def _enrol(
    world: World,
    agents: int,
    begin: int = 0,
) -> None:
    """Enrols agents now, from the number `begin` on."""
    now = datetime.now(UTC)
    await enrol(
        world.client,
        agents,
        lambda _: now,
        now=now,
        progress=lambda _: None,
        signing_key=world.signing_key,
        begin=begin,
    )


async def _enrol_over(
    world: World,
    agents: int,
    seconds: float,
) -> None:
    """Enrols a fleet bit by bit, so that it is due bit by bit ever after."""
    began = time.monotonic()
    enrolled = 0
    for step in range(1, ENROLMENT_STEPS + 1):
        upto = agents * step // ENROLMENT_STEPS
        await _enrol(world, upto, enrolled)
        enrolled = upto
        await asyncio.sleep(max(0.0, began + seconds * step / ENROLMENT_STEPS - time.monotonic()))


@asynccontextmanager
async def _scheduler(world: World, interval_seconds: float) -> AsyncIterator[int]:
    env = world.env | {
        "PING_MAX_CONCURRENT_AGENTS": str(IN_FLIGHT),
        "PING_BASE_INTERVAL_MINUTES": str(interval_seconds / 60),
        "LOG_LEVEL": "warning",
    }
    async with python_module("scheduler", env=env) as scheduler:
        yield scheduler.pid


async def _fastest(
    world: World,
    agents: int,
    seconds: float,
) -> Rate:
    """Pings as fast as it goes; measured once each agent has had two pings."""
    target = await history_messages(world.client) + 2 * agents
    async with _scheduler(world, FASTEST_SECONDS) as pid:
        await _until_recorded(world, target)
        return await _measured(world, pid, seconds)


async def _steady(
    world: World,
    agents: int,
    seconds: float,
) -> Rate:
    """Pings at STEADY_RATE; measured once each agent has had its first ping."""
    interval_seconds = agents / STEADY_RATE
    async with _scheduler(world, interval_seconds) as pid:
        await _enrol_over(world, agents, interval_seconds)
        await _until_recorded(world, agents)
        return await _measured(world, pid, whole_intervals(seconds, interval_seconds))


async def _until_recorded(world: World, outcomes: int) -> None:
    async with asyncio.timeout(300):
        while await history_messages(world.client) < outcomes:  # noqa: ASYNC110  # only looking tells
            await asyncio.sleep(0.2)


async def _measured(
    world: World,
    scheduler_pid: int,
    seconds: float,
) -> Rate:
    pids = (scheduler_pid, world.nats_pid, world.responder_pid)
    began = time.monotonic()
    cpu = [cpu_seconds(pid) for pid in pids]
    counts = [await history_messages(world.client)]
    for number in range(1, SLICES + 1):
        await asyncio.sleep(max(0.0, began + seconds * number / SLICES - time.monotonic()))
        counts.append(await history_messages(world.client))
    took = time.monotonic() - began
    used = [cpu_seconds(pid) - was for pid, was in zip(pids, cpu, strict=True)]
    by_slice = tuple(after - earlier for earlier, after in pairwise(counts))
    pings = max(1, sum(by_slice))
    return Rate(pings / took, *(1000 * spent / pings for spent in used), by_slice=by_slice)


def whole_intervals(seconds: float, interval_seconds: float) -> float:
    """At least so many seconds, and a whole number of intervals."""
    return interval_seconds * max(1, math.ceil(seconds / interval_seconds))


async def measure(
    agents: int,
    rounds: int,
    seconds: float,
    steady_agents: int,
    steady_seconds: float,
) -> dict[str, float]:
    """Alternates between both servers; the figures are medians of the rounds.

    Those at 1,111 pings a second are left out where a run was not steady, on too busy a machine.
    """
    figures = one_report() | memory_by_agent()
    fastest: dict[str, list[Rate]] = {"unsigned": [], "signed": []}
    steady: dict[str, list[Rate]] = {"unsigned": [], "signed": []}
    async with open_world() as unsigned, signed_world() as signed:
        for world in (unsigned, signed):
            await _enrol(world, agents)
        for _ in range(rounds):
            for name, world in (("unsigned", unsigned), ("signed", signed)):
                fastest[name].append(await _fastest(world, agents, seconds))
    for _ in range(rounds):
        for name, new_world in (("unsigned", open_world), ("signed", signed_world)):
            async with new_world() as world:
                rate = await _steady(world, steady_agents, steady_seconds)
            if rate.is_steady:
                steady[name].append(rate)
            else:
                print(
                    f"{name}: left out, it was not steady: {rate.pings_per_second:,.1f} pings a "
                    f"second, by eighths of the time {rate.by_slice}",
                    file=sys.stderr,
                )
    for name, rates in fastest.items():
        figures[f"{name}_pings_per_second"] = _median(rates, lambda rate: rate.pings_per_second)
        figures[f"{name}_scheduler_cpu_ms_per_ping"] = _median(rates, lambda r: r.scheduler_ms)
        figures[f"{name}_nats_cpu_ms_per_ping"] = _median(rates, lambda rate: rate.nats_ms)
        figures[f"{name}_hosts_cpu_ms_per_ping"] = _median(rates, lambda rate: rate.hosts_ms)
    figures["signed_to_unsigned_ratio"] = (
        figures["signed_pings_per_second"] / figures["unsigned_pings_per_second"]
    )
    return figures | _steady_figures(steady)


def _steady_figures(steady: dict[str, list[Rate]]) -> dict[str, float]:
    figures: dict[str, float] = {}
    if not all(steady.values()):
        return figures
    for name, rates in steady.items():
        # per ping, so that a rate that was missed by some percent does not count
        percent = _median(rates, lambda rate: rate.scheduler_ms * STEADY_RATE / 10)
        figures[f"{name}_scheduler_cpu_percent_at_1111_per_second"] = percent
        figures[f"{name}_steady_pings_per_second"] = _median(rates, lambda r: r.pings_per_second)
    figures["signed_extra_cpu_percent_at_1111_per_second"] = (
        figures["signed_scheduler_cpu_percent_at_1111_per_second"]
        - figures["unsigned_scheduler_cpu_percent_at_1111_per_second"]
    )
    return figures


def _median(rates: list[Rate], of: Callable[[Rate], float]) -> float:
    return statistics.median(of(rate) for rate in rates)


def one_report() -> dict[str, float]:
    """The CPU of one signature and of one check, of a report of 8 GPUs."""
    key = SigningKey.generate(KeyKind.USER)
    fleet = SigningKey.generate(KeyKind.ACCOUNT).public
    uuids = tuple(f"GPU-{number:032x}" for number in range(GPUS))
    request = PingRequest(
        ping_id="0a1b2c3d-1f",
        seq=7,
        nonce="0" * 32,
        window_seconds=900.0,
        expected_gpus=uuids,
        previous="f" * 64,
    )
    asked = encode(request)
    report = healthy("bench-0000001", request, datetime.now(UTC))
    report = replace(report, gpus=tuple(replace(report.gpus[0], uuid=uuid) for uuid in uuids))
    payload = encode(report)
    signer = ReportSigner(fleet, key)
    head, extends = "a" * 64, "1edce4a0." + "b" * 64
    header = signer.sign(request, asked, report, payload, head, extends)
    expected = Expected(fleet=fleet, key=key.public, seq=7, previous="f" * 64, request=asked)
    return {
        "report_bytes": float(len(payload)),
        "signature_header_bytes": float(len(header)),
        "sign_us": _cpu_us(lambda: signer.sign(request, asked, report, payload, head, extends)),
        "check_us": _cpu_us(lambda: check(header, expected, report, payload)),
    }


def _cpu_us(work: Callable[[], object], times: int = 200, tries: int = 15) -> float:
    """The least CPU of several tries, which other processes disturb least."""
    least = float("inf")
    for _ in range(tries):
        began = time.thread_time()
        for _ in range(times):
            work()
        least = min(least, (time.thread_time() - began) / times)
    return 1e6 * least


def memory_by_agent(agents: int = 5_000) -> dict[str, float]:
    """What a scheduler holds for an agent's key and chains, decoded as it decodes it."""
    without = _decoded_bytes(agents, signed=False)
    signed = _decoded_bytes(agents, signed=True)
    each = (signed - without) / agents
    return {
        "signed_scheduler_bytes_per_agent": each,
        "signed_scheduler_megabytes_for_a_million": each * 1_000_000 / 2**20,
    }


def _decoded_bytes(agents: int, *, signed: bool) -> float:
    now = datetime.now(UTC)
    messages = []
    for number in range(agents):
        name = f"bench-{number:07d}"
        entry = AgentEntry(agent_id=name, registered_at=now, enrolled_at=now)
        outcome = Outcome(ping_id="p", ping_seq=1, pinged_at=now, outcome="missed", verdict="poor")
        state = AgentState(
            agent_id=name, ping_seq=1, interval_seconds=900.0, next_ping_at=now, last=outcome
        )
        if signed:
            text = request_hash(name.encode())
            key = f"UA{text[:54].upper()}"
            entry = replace(entry, signing_key=key)
            heads = (f"{text[:8]}.{text}", f"{text[:8]}.{text[::-1]}")
            state = replace(state, report_hash=text, report_key=key, ledger_heads=heads)
        messages.append((encode(entry), encode(state)))
    tracemalloc.start()
    held = [(decode(entry, AgentEntry), decode(state, AgentState)) for entry, state in messages]
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    del held
    return float(used)


if __name__ == "__main__":
    import uvloop

    found = uvloop.run(measure(**(QUICK if "quick" in sys.argv else FULL)))
    for name, value in found.items():
        print(f"{name} {value:,.3f}")
