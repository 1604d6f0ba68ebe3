"""The checks that ask the bus: server, JetStream, streams, services, permissions, clock."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Mapping
from datetime import datetime

from bus import clock
from bus.client.fleet_client import FleetClient
from bus.contract import subjects
from bus.contract.questions import ListRequest
from bus.errors import BusError, RefusedError, UnavailableError
from bus.redaction import redact_address
from bus.settings import Settings
from bus.transport import jetstream_api, layout, micro_services
from bus.transport.connection import Client
from bus.transport.jetstream_api import JetStreamApiError
from bus.transport.micro_services import ask_raw
from gpuping.doctor import bridge_check, fleet_checks
from gpuping.output.findings import Finding, failure, note, ok, warning

WORK_SECONDS = 2.0
MOST_LISTED = 1000  # agents of one answer
MOST_SKEW_SECONDS = 1.0
MOST_SCHEDULER_SKEW_SECONDS = 2.0  # a scheduler that is further ahead uses the server's clock
NEEDED_SERVICES = (subjects.SCHEDULER_SERVICE, subjects.STORAGE_SERVICE)
SERVICES = (
    *NEEDED_SERVICES,
    subjects.ENROLMENT_SERVICE,
    subjects.ALERTS_SERVICE,
    subjects.AGENTD_SERVICE,
)


async def server(client: Client) -> Finding:
    """The server's version, and the time of a round trip."""
    began = time.perf_counter()
    await client.flush(timeout=5)
    milliseconds = (time.perf_counter() - began) * 1000
    try:
        layout.check_server(client)
    except BusError as error:
        return failure("bus", str(error), "update nats-server to 2.12 or newer")
    version = layout.server_version(client)
    detail = (
        f"nats-server {version} at {redact_address(client.address)}, {milliseconds:.1f} ms away"
    )
    return ok("bus", detail)


async def jetstream(client: Client) -> Finding:
    """Whether JetStream is enabled in this account, and how much it keeps."""
    try:
        account = await jetstream_api.call(client, "INFO")
    except JetStreamApiError as error:
        return failure("jetstream", error.description, "enable JetStream for this account")
    except BusError as error:
        advice = "see deploy/nats.conf for a configuration that fits"
        return failure("jetstream", str(error), advice)
    mebibytes = account["storage"] / 2**20
    return ok("jetstream", f"{account['streams']} streams, {mebibytes:.1f} MiB on disk")


async def streams(client: Client, settings: Settings) -> Finding:
    """Whether the bucket and the history exist and are configured as gpuping needs them."""
    try:
        problems = await layout.inspect(client, settings)
    except BusError as error:
        return failure("streams", str(error), "enable JetStream first")
    if problems:
        mended_by = {problem.mended_by for problem in problems}
        if "command" in mended_by:
            advice = "give the same command again, with the same folder"
        elif "start" in mended_by:
            advice = "start a scheduler: it makes them, and changes what costs no messages"
        else:
            advice = "nothing changes it by itself: give all services one set of settings"
        detail = "; ".join(problem.text for problem in problems)
        return warning("streams", detail, advice)
    remark = await layout.room_remark(client, settings)
    if remark is not None:
        advice = (
            "make room on the disk of the nats-server and start again, "
            "or set GPUPING_HISTORY_STREAM_GB lower"
        )
        return warning("streams", remark, advice)
    names = f"{subjects.BUCKET_STREAM} and {subjects.HISTORY_STREAM}"
    return ok("streams", f"{names} are as they should be")


async def services(client: Client) -> Finding:
    """Which micro services answer, and how many of each."""
    counts = await _count_services(client)
    found = []
    for name in SERVICES:
        if name in counts:
            found.append(f"{counts[name]} {name}")
    answering = "answering: " + (", ".join(found) or "none")
    commands = []
    for name in NEEDED_SERVICES:
        if name not in counts:
            commands.append(f"`gpuping {name.removeprefix('gpuping-')}`")
    if commands:
        advice = f"start {' and '.join(commands)}, or `gpuping up`"
        return failure("services", answering, advice)
    if subjects.AGENTD_SERVICE not in counts:
        advice = "no agent is on the bus: start `gpuping agentd` on a GPU host"
        return note("services", answering, advice)
    return ok("services", answering)


async def service_answers(client: Client, name: str) -> Finding:
    """Whether a service answers and can work. Raises UnavailableError when none answers."""
    await ask_raw(client, subjects.micro_ping(name), b"", who=name, timeout=2.0)
    troubles = await FleetClient(client, WORK_SECONDS).troubles(WORK_SECONDS, for_operators=True)
    trouble = troubles.get(name.removeprefix("gpuping-"))
    if trouble is not None:
        return failure(name, f"cannot work: {trouble}", "see its log")
    return ok(name, "answers, and can work")


async def work(client: Client) -> Finding:
    """Whether scheduler and storage can do their work, which is more than to answer."""
    troubles = await FleetClient(client, WORK_SECONDS).troubles(WORK_SECONDS, for_operators=True)
    sentences = []
    for name, trouble in troubles.items():
        if trouble is not None:
            sentences.append(f"{name}: {trouble}")
    if sentences:
        advice = (
            "do what it says and what the other lines say; else make room on the disk, or end the "
            "process that holds the file; see the log"
        )
        return failure("work", f"cannot work: {'; '.join(sentences)}", advice)
    remarks = await FleetClient(client, WORK_SECONDS).remarks(WORK_SECONDS)
    if remarks:
        return warning("work", "; ".join(remarks), "see docs/troubleshooting.md")
    return ok("work", "scheduler and storage can keep outcomes")


async def schedulers(client: Client) -> list[Finding]:
    """What all schedulers say together: rules, disks of the bus, gateways."""
    stats = await FleetClient(client, WORK_SECONDS).every_scheduler(WORK_SECONDS)
    if not stats:
        return []
    return [
        fleet_checks.lost_schedulers(stats),
        fleet_checks.policies(stats),
        fleet_checks.bus_disks(stats),
        fleet_checks.gateways(stats),
    ]


async def history(client: Client) -> list[Finding]:
    """What storage says: how far back the bus reaches, and the room that storage has."""
    stats = await FleetClient(client, WORK_SECONDS).storage_stats(WORK_SECONDS)
    return [fleet_checks.edge(stats), fleet_checks.storage_disk(stats)]


async def silent_hosts(client: Client) -> Finding:
    """Which hosts do not answer their pings."""
    fleet = FleetClient(client, WORK_SECONDS)
    missing = ListRequest(status="missing", limit=fleet_checks.NAMED_AGENTS)
    pending = ListRequest(status="pending", limit=MOST_LISTED)
    return fleet_checks.agents(await fleet.agents(missing), await fleet.agents(pending))


async def asked_by_http(client: Client, settings: Settings) -> Finding:
    """Which agents with an address are asked there."""
    request = ListRequest(has_url=True)
    page = await FleetClient(client, WORK_SECONDS).agents(request)
    return bridge_check.judge(page.agents, settings.bridge_networks)


async def _count_services(client: Client) -> Counter[str]:
    """How many micro services of each name answer.

    Each name is asked for by itself: agents hear the question for all services, too, and could
    answer it in the name of a service that is away.
    """
    asked = [micro_services.discover(client, subjects.micro_ping(name)) for name in SERVICES]
    counts: Counter[str] = Counter()
    for name, found in zip(SERVICES, await asyncio.gather(*asked), strict=True):
        if found:
            counts[name] = len(found)
    return counts


async def server_clock(client: Client) -> Finding:
    """This machine's wall clock against the server's, because pings are due by wall time."""
    before = clock.utc_now()
    try:
        answer = await jetstream_api.call(client, f"STREAM.INFO.{subjects.BUCKET_STREAM}")
    except JetStreamApiError:
        answer = {}
    after = clock.utc_now()
    if "ts" not in answer:
        return note("bus clock", "the server does not tell its time")
    server_time = datetime.fromisoformat(answer["ts"])
    halfway = before + (after - before) / 2
    skew_seconds = (server_time - halfway).total_seconds()
    direction = "behind"
    if skew_seconds > 0:
        direction = "ahead"
    detail = f"the server's clock is {abs(skew_seconds) * 1000:.0f} ms {direction}"
    if abs(skew_seconds) > MOST_SKEW_SECONDS:
        advice = "synchronize the clocks of both machines (chrony, timesyncd)"
        return warning("bus clock", detail, advice)
    return ok("bus clock", detail)


async def scheduler_clocks(client: Client) -> Finding:
    """The schedulers' clocks against the server's and each other's.

    The windows of pings lie on the calendar of the scheduler that made them.
    """
    offsets = {}
    for stats in await FleetClient(client, WORK_SECONDS).every_scheduler(WORK_SECONDS):
        if stats.bus_clock_offset_seconds is not None:
            offsets[stats.instance] = stats.bus_clock_offset_seconds
    return clock_finding(offsets)


def clock_finding(offsets: Mapping[str, float]) -> Finding:
    """Judges the server's clock less each scheduler's, in seconds, by scheduler."""
    if not offsets:
        return note("scheduler clocks", "no scheduler has measured its clock yet")
    furthest = max(abs(offset) for offset in offsets.values())
    apart = max(offsets.values()) - min(offsets.values())
    detail = f"{len(offsets)} asked, at most {furthest:.1f} s from the server's"
    if len(offsets) > 1:
        detail += f" and {apart:.1f} s from each other's"
    if max(furthest, apart) > MOST_SCHEDULER_SKEW_SECONDS:
        advice = "synchronize the clocks of the schedulers and of the bus (chrony, timesyncd)"
        return warning("scheduler clocks", detail, advice)
    return ok("scheduler clocks", detail)


async def permissions(client: Client) -> Finding:
    """Whether this account may ask services and hear live events, as every reading command does."""
    subscription = await client.subscribe(subjects.EVENT_ALL)
    # Whether the scheduler answers is checked by `services`.
    with contextlib.suppress(UnavailableError, RefusedError):
        await ask_raw(client, subjects.FLEET, b"", who="the scheduler", timeout=1.0)
    await subscription.unsubscribe()
    if client.denied:
        advice = "ask the bus's operator for the role of a viewer"
        return warning("permissions", "; ".join(client.denied), advice)
    return ok("permissions", "services may be asked, live events may be heard")
