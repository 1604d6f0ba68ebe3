"""`gpuping up --demo`: twelve named hosts in mixed scenarios, with a month of history behind them.

The month is invented: it is written once, into an empty data dir, as outcomes of the past. From
then on everything is real but the GPUs, which are simulated.
"""

import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from msgspec import Raw
from msgspec.structs import replace
from rich.text import Text

from bus import clock
from bus.contract import subjects
from bus.contract.durations import uptime_percent
from bus.contract.messages import (
    AgentEntry,
    AgentState,
    GpuReport,
    GpuTime,
    Incident,
    KnownGpu,
    Outcome,
    Seconds,
    UptimeReport,
    Window,
    encode,
)
from bus.contract.reasons import UPTIME_BELOW_THRESHOLD
from bus.identity.host import signing_key_of
from bus.settings import Settings
from bus.transport import connection
from gpuping.client.bus_file import DEMO_FOLDER
from gpuping.up.local_agents import LocalAgent

MONTH = timedelta(days=30)
STEP = timedelta(minutes=15)
BASE_INTERVAL_MINUTES = 0.1
MAX_INTERVAL_HOURS = 0.02  # so that a host that is worse is still seen to be pinged less often
GPU_NAME = "Simulated GPU"
ANOTHER_GPU = 0.25  # how often a fault is of another GPU than the first
_SEED = 24  # the same month at every first start


class DemoHost(NamedTuple):
    """A host of the demo. `scenario` is None for one whose agent does not run.

    `faults_a_day` is how many of its pings a day of the invented month were poor, for want of a GPU
    whose reason was `fault`; `missed_days` on how many days before now it answered nothing.
    """

    agent_id: str
    scenario: str | None
    gpus: int
    site: str
    note: str
    faults_a_day: float = 0.02
    missed_days: tuple[int, ...] = ()
    fault: str = "lost"


HOSTS = (
    DemoHost("fra-a100-01", "healthy", 2, "FRA", "all is well"),
    DemoHost("fra-a100-02", "healthy", 2, "FRA", "all is well"),
    DemoHost("fra-h100-01", "eight-gpus-one-bad", 8, "FRA", "one of eight GPUs is down"),
    DemoHost("fra-h100-02", "healthy", 2, "FRA", "was off for two days", 0.05, (11, 12)),
    DemoHost("ams-l40-01", "healthy", 2, "AMS", "all is well"),
    DemoHost("ams-l40-02", "thermal", 2, "AMS", "hot: degraded, and still up", 0.1, (), "xid:79"),
    DemoHost("ams-l40-03", "flapping", 2, "AMS", "a GPU drops out every 20 s", 9.0),
    DemoHost("nyc-4090-01", "healthy", 2, "NYC", "all is well"),
    DemoHost("nyc-4090-02", "lost-and-back", 2, "NYC", "lost a GPU once, recovers", 0.5),
    DemoHost("nyc-4090-03", "dying", 2, "NYC", "a GPU on its way out", 2.0, (), "ecc"),
    DemoHost("sin-h200-01", "hung", 2, "SIN", "the driver stops answering", 0.3, (), "hung"),
    DemoHost("sin-h200-02", None, 4, "SIN", "switched off: nobody answers", 0.2, (0, 1)),
)


def agents_line() -> Text:
    """What `gpuping up` prints of the hosts."""
    off = [host.agent_id for host in HOSTS if host.scenario is None]
    line = Text(f"{len(HOSTS)} simulated hosts in mixed states")
    line.append(
        f"  {', '.join(off)} is switched off; the month before now is invented", "bright_black"
    )
    return line


def demo_settings(settings: Settings) -> Settings:
    """The settings of a demo: a data dir below the usual one, and short intervals.

    An interval that was set stays as it was set.
    """
    changes: dict[str, Any] = {"GPUPING_DATA_DIR": str(settings.data_dir / DEMO_FOLDER)}
    defaults = Settings()
    if settings.PING_BASE_INTERVAL_MINUTES == defaults.PING_BASE_INTERVAL_MINUTES:
        changes["PING_BASE_INTERVAL_MINUTES"] = BASE_INTERVAL_MINUTES
    if settings.PING_MAX_INTERVAL_HOURS == defaults.PING_MAX_INTERVAL_HOURS:
        changes["PING_MAX_INTERVAL_HOURS"] = MAX_INTERVAL_HOURS
    return replace(settings, **changes)


def planned_agents(settings: Settings) -> list[LocalAgent]:
    """The agents of the hosts that are on."""
    agents = []
    for host in HOSTS:
        if host.scenario is not None:
            state_dir = settings.data_dir / "agents" / host.agent_id
            agents.append(LocalAgent(host.agent_id, state_dir, host.scenario, _metadata(host)))
    return agents


def _metadata(host: DemoHost) -> dict[str, Any]:
    return {"site": host.site, "note": host.note}


async def seed_history(settings: Settings) -> list[AgentState] | None:
    """Writes the invented month into a data dir that has no history yet.

    Returns each host's last state, for `seed_bucket`; None where there is a history already.
    """
    from storage.engine.rows import Arrival
    from storage.store.store import Store

    store = Store(settings)
    if store.file.exists():
        return None
    now = _now()
    await store.open(now)
    last_states: list[AgentState] = []
    try:
        sequence = 0
        for host in HOSTS:
            batch = []
            states = list(_month(host, now))
            last_states.append(states[-1])
            for state in states:
                sequence += 1
                batch.append(Arrival(sequence, state.agent_id, encode(state)))
            # The stream of this number never was: storage reads the real one from its beginning.
            await store.write(1, await store.prepare(batch))
    finally:
        await store.close()
    return last_states


async def seed_bucket(settings: Settings, last_states: list[AgentState]) -> None:
    """Gives each host's entry and a last outcome, of this moment, to the scheduler to carry on.

    The agents run already, so that their ledgers know all the time since that outcome. The keys
    that they sign with are read where they keep them: the scheduler records keys, and starts later.
    """
    state_dirs = {agent.agent_id: agent.state_dir for agent in planned_agents(settings)}
    inbox_prefix = subjects.service_inbox("scheduler")
    async with connection.connected(settings, "demo", inbox_prefix=inbox_prefix) as client:
        stream = client.jetstream()
        for host, state in zip(HOSTS, last_states, strict=True):
            entry = _entry(host, _now())
            if host.scenario is not None and settings.NATS_CREDS:
                key = signing_key_of(state_dirs[host.agent_id], host.agent_id)
                entry = replace(entry, signing_key=key.public)
            await stream.publish(subjects.agent_key(host.agent_id), encode(entry))
            last = _carried_on(host, state, _now())
            await stream.publish(subjects.state_key(host.agent_id), encode(last))


def _now() -> datetime:
    """This moment in whole milliseconds, as all times of windows are."""
    now = clock.utc_now()
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


def _entry(host: DemoHost, now: datetime) -> AgentEntry:
    return AgentEntry(
        agent_id=host.agent_id,
        registered_at=now - MONTH,
        enrolled_at=now - MONTH,
        metadata=_metadata(host) | {"simulated": True},
        expected_gpus=_uuids(host),
        expects_simulated=True,
    )


def _uuids(host: DemoHost) -> tuple[str, ...]:
    from agentd.scenario import simulated_uuid

    return tuple(simulated_uuid(host.agent_id, gpu) for gpu in range(host.gpus))


def _month(host: DemoHost, now: datetime) -> Iterator[AgentState]:
    """The host's states of the month that ends now, one every STEP."""
    chance = random.Random(f"{_SEED} {host.agent_id}")  # noqa: S311  # nothing secret
    count = MONTH // STEP
    moments = [now - (count - number) * STEP for number in range(1, count + 1)]
    uuids = _uuids(host)
    known_gpus = tuple(KnownGpu(uuid, index, GPU_NAME) for index, uuid in enumerate(uuids))
    missed = 0
    poor_in_a_row = 0
    answered_at: datetime | None = None
    since = now - (count + 1) * STEP  # where the window that is open begins
    for number, at in enumerate(moments, 1):
        days_ago = (now - at).days
        down = 0.0
        if chance.random() < host.faults_a_day * (STEP / timedelta(days=1)):
            down = round(chance.uniform(20.0, STEP.total_seconds()), 3)
        is_off = days_ago in host.missed_days
        missed += is_off
        poor_in_a_row = poor_in_a_row + 1 if is_off or down > 0 else 0
        outcome = _missed(host, number, at, since)
        if not is_off:
            outcome = _answered(host, uuids, number, at, since, down, chance)
            answered_at = at
            since = at
        yield AgentState(
            agent_id=host.agent_id,
            ping_seq=number,
            answered=number - missed,
            interval_seconds=STEP.total_seconds(),
            next_ping_at=at,
            last=outcome,
            missed=missed,
            last_answered_at=answered_at,
            last_outcome=outcome.outcome,
            last_judged=outcome.verdict,
            good_streak=0 if poor_in_a_row else 3,
            consecutive_poor=min(poor_in_a_row, 4),
            uptime_percent=outcome.uptime_percent,
            gpus_before=known_gpus if is_off else (),
        )


def _carried_on(
    host: DemoHost,
    last: AgentState,
    at: datetime,
) -> AgentState:
    """The state after one more outcome: of a host that is up, or of one that is still off."""
    number = last.ping_seq + 1
    if last.last.outcome == "missed":
        assert last.last.since is not None  # noqa: S101  # `_missed` sets it
        outcome = _missed(host, number, at, last.last.since)
        return replace(
            last,
            ping_seq=number,
            next_ping_at=at,
            last=outcome,
            missed=last.missed + 1,
        )
    chance = random.Random(_SEED)  # noqa: S311  # nothing secret
    outcome = _answered(host, _uuids(host), number, at, last.last.pinged_at, 0.0, chance)
    return replace(
        last,
        ping_seq=number,
        answered=last.answered + 1,
        next_ping_at=at,
        last=outcome,
        last_answered_at=at,
        last_judged=outcome.verdict,
        good_streak=3,
        consecutive_poor=0,
        uptime_percent=outcome.uptime_percent,
    )


def _answered(
    host: DemoHost,
    uuids: tuple[str, ...],
    number: int,
    at: datetime,
    since: datetime,
    down: float,
    chance: random.Random,
) -> Outcome:
    """The time before the last STEP of a window is unknown: the host was off."""
    length = round((at - since).total_seconds(), 3)
    known = min(length, STEP.total_seconds())
    unknown = round(length - known, 3)
    down = min(down, known)
    seconds = Seconds(
        up=round(known - down, 3),
        down=down,
        unknown=unknown,
    )
    uptime = _percent(seconds)
    bad_gpu = chance.randrange(len(uuids)) if chance.random() < ANOTHER_GPU else 0
    incidents = []
    if unknown > 0:
        came_back = since + timedelta(seconds=unknown)
        incidents.append(Incident(state="unknown", reason="reboot", since=since, until=came_back))
    if down > 0:
        begin_seconds = unknown + round(chance.uniform(0.0, known - down), 3)
        begin = since + timedelta(seconds=begin_seconds)
        incident = Incident(
            gpu=uuids[bad_gpu],
            state="down",
            reason=host.fault,
            since=begin,
            until=begin + timedelta(seconds=down),
        )
        incidents.append(incident)
    gpus = []
    for index, uuid in enumerate(uuids):
        own = Seconds(up=known, unknown=unknown)
        if index == bad_gpu:
            own = seconds
        gpu = GpuReport(
            uuid=uuid,
            index=index,
            name=GPU_NAME,
            state="up",
            uptime_percent=_percent(own),
            seconds=own,
        )
        gpus.append(gpu)
    report = UptimeReport(
        agent_id=host.agent_id,
        window=Window(
            since=since,
            until=at,
            seconds=length,
        ),
        uptime_percent=uptime,
        gpu_available=True,
        seconds=seconds,
        gpus=tuple(gpus),
        incidents=tuple(incidents),
        simulated=True,
    )
    times: tuple[GpuTime, ...] = ()
    if down > 0:
        times = tuple(GpuTime(gpu.uuid, gpu.seconds) for gpu in gpus)
    return Outcome(
        ping_id=f"demo-{host.agent_id}-{number}",
        ping_seq=number,
        pinged_at=at,
        outcome="answered",
        verdict="good" if uptime >= 99.0 else "poor",
        reason=None if uptime >= 99.0 else UPTIME_BELOW_THRESHOLD,
        uptime_percent=uptime,
        seconds=seconds,
        window_seconds=length,
        response_ms=round(chance.lognormvariate(0.9, 0.35), 3),
        late_ms=round(chance.uniform(1.0, 8.0), 3),
        since=since,
        gpus=times,
        report=Raw(encode(report)),
    )


def _percent(seconds: Seconds) -> float:
    """The uptime in whole milliseconds: of floats 100 x s / s may be above 100."""
    good = round(seconds.up * 1000)
    judged = good + round((seconds.down + seconds.unknown) * 1000)
    return uptime_percent(good, judged) or 0.0


def _missed(
    host: DemoHost,
    number: int,
    at: datetime,
    since: datetime,
) -> Outcome:
    return Outcome(
        ping_id=f"demo-{host.agent_id}-{number}",
        ping_seq=number,
        pinged_at=at,
        outcome="missed",
        verdict="poor",
        reason="no_responders",
        late_ms=4.0,
        since=since,
    )
