"""The checks of `gpuping doctor` that ask the bus: server, JetStream, streams, services, permissions, clock."""

import contextlib
import json
import time
from datetime import datetime

from bus import clock
from bus.contract import subjects
from bus.errors import BusError, RefusedError, UnavailableError
from bus.settings import Settings
from bus.transport import jetstream_api, layout
from bus.transport.connection import Client
from bus.transport.jetstream_api import JetStreamApiError
from bus.transport.micro_services import ask_raw
from gpuping.output.findings import Finding, failure, note, ok, warning

DISCOVERY_SECONDS = 0.5
SKEW_SECONDS = 1.0
SERVICES = (subjects.SCHEDULER_SERVICE, subjects.STORAGE_SERVICE, subjects.AGENTD_SERVICE)


async def server(client: Client) -> Finding:
    """Version and round trip."""
    began = time.perf_counter()
    await client.flush(timeout=5)
    milliseconds = (time.perf_counter() - began) * 1000
    detail = f"nats-server {layout.server_version(client)} at {client.address}, {milliseconds:.1f} ms away"
    try:
        layout.check_server(client)
    except BusError as error:
        return failure("bus", str(error), "update nats-server to 2.12 or newer")
    return ok("bus", detail)


async def jetstream(client: Client) -> Finding:
    """Enabled in this account, and how much it keeps."""
    try:
        account = await jetstream_api.call(client, "INFO")
    except JetStreamApiError as refusal:
        return failure("jetstream", refusal.description, "enable JetStream for this account")
    except BusError as error:
        return failure(
            "jetstream", str(error), "see deploy/nats.conf for a configuration that fits"
        )
    return ok(
        "jetstream", f"{account['streams']} streams, {account['storage'] / 2**20:.1f} MiB on disk"
    )


async def streams(client: Client, settings: Settings) -> Finding:
    """The bucket and the history exist and are as gpuping needs them."""
    try:
        problems = await layout.inspect(client, settings)
    except BusError as error:
        return failure("streams", str(error), "enable JetStream first")
    if problems:
        return warning(
            "streams",
            "; ".join(problems),
            "start a scheduler: it makes them, and brings them into line",
        )
    return ok(
        "streams", f"{subjects.BUCKET_STREAM} and {subjects.HISTORY_STREAM} are as they should be"
    )


async def services(client: Client) -> Finding:
    """Which micro services answer."""
    counts = await _discovered(client)
    found = ", ".join(f"{counts[name]} {name}" for name in SERVICES if counts.get(name)) or "none"
    missing = [name for name in SERVICES[:2] if not counts.get(name)]
    if missing:
        verbs = " and ".join(f"`gpuping {name.removeprefix('gpuping-')}`" for name in missing)
        return failure("services", f"answering: {found}", f"start {verbs}, or `gpuping up`")
    if not counts.get(subjects.AGENTD_SERVICE):
        return note(
            "services",
            f"answering: {found}",
            "no agent is on the bus: start `gpuping agentd` on a GPU host",
        )
    return ok("services", f"answering: {found}")


async def answers(client: Client, name: str) -> Finding:
    """Whether a micro service of that name answers."""
    await ask_raw(client, subjects.micro_ping(name), b"", who=name, timeout=2.0)
    return ok(name, "answers")


async def _discovered(client: Client) -> dict[str, int]:
    counts: dict[str, int] = {}
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox)
    await client.publish(subjects.MICRO_PING, reply=inbox)
    deadline = time.monotonic() + DISCOVERY_SECONDS
    while (left := deadline - time.monotonic()) > 0:
        try:
            message = await subscription.next_msg(timeout=left)
        except TimeoutError:
            break
        name = json.loads(message.data or b"{}").get("name", "")
        counts[name] = counts.get(name, 0) + 1
    await subscription.unsubscribe()
    return counts


async def server_clock(client: Client) -> Finding:
    """Our wall clock against the server's: due times and labels are wall time."""
    before = clock.utc_now()
    try:
        answer = await jetstream_api.call(client, f"STREAM.INFO.{subjects.BUCKET_STREAM}")
    except JetStreamApiError:
        answer = {}
    after = clock.utc_now()
    if "ts" not in answer:
        return note("bus clock", "the server does not tell its time")
    theirs = datetime.fromisoformat(answer["ts"])
    skew = (theirs - (before + (after - before) / 2)).total_seconds()
    detail = f"the server's clock is {abs(skew) * 1000:.0f} ms {'ahead' if skew > 0 else 'behind'}"
    if abs(skew) > SKEW_SECONDS:
        return warning(
            "bus clock", detail, "synchronize the clocks of both machines (chrony, timesyncd)"
        )
    return ok("bus clock", detail)


async def permissions(client: Client) -> Finding:
    """What a looking verb needs: to ask services, and to hear the live events."""
    subscription = await client.subscribe(subjects.EVENT_ALL)
    with contextlib.suppress(UnavailableError, RefusedError):  # whether it runs is asked elsewhere
        await ask_raw(client, subjects.FLEET, b"", who="the scheduler", timeout=1.0)
    await subscription.unsubscribe()
    if client.denied:
        return warning(
            "permissions",
            "; ".join(client.denied),
            "ask the bus's operator for the role of a viewer",
        )
    return ok("permissions", "services may be asked, live events may be heard")
