"""`make drill NAME=presence`: how soon `connected` is right, as REST shows it. Needs root.

Twenty hosts, each with a network namespace of its own, are connected to a bus over TLS. Their
connections are closed, their processes frozen, and their cables pulled; then server, scheduler and
gateway are killed in turn, each time while another host goes away. The time is taken from the
deed to the first answer of the gateway that shows it.
"""

import asyncio
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx

from bus.background import background
from bus.clock import boottime
from bus.identity.local import LocalIdentities
from bus.identity.tls import certificates
from bus.settings import load
from gpuping.client import own_server
from gpuping.client.own_server import OwnServer
from tests.chaos.machine import Namespaces, is_root
from tests.chaos.processes import Attacked
from tests.chaos.run import say
from tests.ports import free_port

HOSTS = 20
CLOSINGS = 50
FREEZES = 20
PARTITIONS = 20
RESTARTS = 5
LOOK_SECONDS = 0.05
WITHIN = {"closed": 2.0, "frozen": 15.0, "cut off": 15.0, "restarted": 5.0}
SPREAD_SECONDS = 5.0  # of the server's pings: the deeds fall anywhere between two of them
GIVE_UP_SECONDS = 90.0

_HOST = Path(__file__).with_name("bare_host.py")


class Measured(NamedTuple):
    """Seconds of one kind of deed, in the order in which they were done."""

    what: str
    limit: float
    seconds: list[float]

    @property
    def holds(self) -> bool:
        return max(self.seconds) <= self.limit

    def line(self) -> str:
        ordered = sorted(self.seconds)
        p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
        return (
            f"{self.what}: {len(ordered)} times, p50 {statistics.median(ordered):.2f} s, "
            f"p99 {p99:.2f} s, longest {ordered[-1]:.2f} s (limit {self.limit:g} s)"
        )


class Fleet:
    """The hosts, and what the gateway shows of them."""

    def __init__(
        self, folder: Path, hosts: dict[str, Attacked], namespaces: Namespaces, url: str
    ) -> None:
        self._folder = folder
        self.hosts = hosts
        self.namespaces = namespaces
        self._rest = httpx.AsyncClient(base_url=url, timeout=2.0)
        self.shown: dict[str, bool | None] = {}
        self.answered_at = 0.0

    async def watch(self) -> None:
        """Asks again and again until cancelled; `shown` is the last answer."""
        while True:
            try:
                answer = await self._rest.get("/ping-system/agents")
                if answer.status_code == 200:
                    agents = answer.json()["agents"]
                    self.shown = {agent["agent_id"]: agent["connected"] for agent in agents}
                    self.answered_at = boottime()
            except httpx.HTTPError:
                self.shown = {}
            await asyncio.sleep(LOOK_SECONDS)

    async def register(self, name: str) -> None:
        answer = await self._rest.post("/ping-system/agents/register", json={"agent_id": name})
        answer.raise_for_status()

    async def until(self, holds: Callable[[dict[str, bool | None]], bool]) -> float:
        """Returns when the gateway has answered so."""
        asked = boottime()
        async with asyncio.timeout(GIVE_UP_SECONDS):
            while self.answered_at < asked or not holds(self.shown):  # noqa: ASYNC110  # it is asked for anyway
                await asyncio.sleep(LOOK_SECONDS / 2)
        return boottime()

    async def until_shown(self, name: str, *, connected: bool) -> float:
        return await self.until(lambda shown: shown.get(name) is connected)

    def last_taken(self) -> float:
        """When the server took the newest connection of a host."""
        return max(float(_taken(self._folder, name).read_text()) for name in self.hosts)

    async def until_all_are_connected(self) -> float:
        return await self.until(lambda shown: all(shown.get(name) for name in self.hosts))


async def closings(fleet: Fleet) -> list[float]:
    """SIGKILL: the host's kernel closes the socket."""
    found: list[float] = []
    while len(found) < CLOSINGS:
        for name, host in list(fleet.hosts.items())[: CLOSINGS - len(found)]:
            host.hold()
            killed = boottime()
            host.kill()
            found.append(await fleet.until_shown(name, connected=False) - killed)
        for host in fleet.hosts.values():
            host.release()
        await fleet.until_all_are_connected()
    return found


async def freezes(fleet: Fleet) -> list[float]:
    async def one(name: str) -> float:
        await asyncio.sleep(random.uniform(0, SPREAD_SECONDS))
        frozen = boottime()
        fleet.hosts[name].freeze()
        try:
            return await fleet.until_shown(name, connected=False) - frozen
        finally:
            fleet.hosts[name].thaw()

    found = await asyncio.gather(*(one(name) for name in list(fleet.hosts)[:FREEZES]))
    await fleet.until_all_are_connected()
    return found


async def partitions(fleet: Fleet) -> list[float]:
    async def one(name: str) -> float:
        await asyncio.sleep(random.uniform(0, SPREAD_SECONDS))
        cut = boottime()
        await fleet.namespaces.isolate(name, isolated=True)
        try:
            return await fleet.until_shown(name, connected=False) - cut
        finally:
            await fleet.namespaces.isolate(name, isolated=False)

    found = await asyncio.gather(*(one(name) for name in list(fleet.hosts)[:PARTITIONS]))
    await fleet.until_all_are_connected()
    return found


async def restarts(fleet: Fleet, kill: Callable[[], None]) -> list[float]:
    """Kills a part of the system and, at the same moment, a host: both must be shown right.

    The time is taken from when the gateway answers again, or from when the last host is connected
    again where that is later: before, there is nothing that could be shown.
    """
    found = []
    for _ in range(RESTARTS):
        gone = random.choice(list(fleet.hosts))
        fleet.hosts[gone].hold()
        fleet.hosts[gone].kill()
        fleet.shown = {}
        killed = boottime()
        kill()

        def is_right(shown: dict[str, bool | None], gone: str = gone) -> bool:
            return all(shown.get(name) is (name != gone) for name in fleet.hosts)

        await asyncio.sleep(LOOK_SECONDS)
        answered = await fleet.until(bool)
        right = await fleet.until(is_right)
        back = fleet.last_taken()
        found.append(max(0.0, right - max(answered, back)))
        say(
            f"  after the kill: answers {answered - killed:.1f} s, the last host is back "
            f"{max(0.0, back - killed):.1f} s, right {right - killed:.1f} s"
        )
        fleet.hosts[gone].release()
        await fleet.until_all_are_connected()
    return found


async def measure() -> list[Measured]:
    """Everything, one after the other."""
    folder = Path(tempfile.mkdtemp(prefix="gpuping-presence-"))
    try:
        async with AsyncExitStack() as stack:
            names = [f"h{number:02d}" for number in range(HOSTS)]
            namespaces = Namespaces(names)
            await namespaces.make()
            stack.push_async_callback(namespaces.remove)
            bus = await stack.enter_async_context(_server(folder, namespaces.own_address))
            start = await stack.enter_async_context(background())
            scheduler, gateway, url = _services(folder, bus)
            start(scheduler.run())
            start(gateway.run())
            hosts = {name: _host(folder, bus, namespaces, name) for name in names}
            fleet = Fleet(folder, hosts, namespaces, url)
            start(fleet.watch())
            await fleet.until(lambda _: True)
            for name, host in hosts.items():
                await fleet.register(name)
                start(host.run())
            await fleet.until_all_are_connected()
            say(f"{HOSTS} hosts are connected")
            kills = {
                "nats-server": lambda: _kill_server(folder),
                "the scheduler": scheduler.kill,
                "the gateway": gateway.kill,
            }
            return await _each(fleet, kills)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _each(fleet: Fleet, kills: dict[str, Callable[[], None]]) -> list[Measured]:
    found = [Measured("a closed socket", WITHIN["closed"], await closings(fleet))]
    say(found[-1].line())
    found.append(Measured("a frozen host", WITHIN["frozen"], await freezes(fleet)))
    say(found[-1].line())
    found.append(Measured("a host that is cut off", WITHIN["cut off"], await partitions(fleet)))
    say(found[-1].line())
    for name, kill in kills.items():
        seconds = await restarts(fleet, kill)
        found.append(Measured(f"right after a restart of {name}", WITHIN["restarted"], seconds))
        say(found[-1].line())
    return found


@asynccontextmanager
async def _server(folder: Path, address: str) -> AsyncIterator[OwnServer]:
    """A bus with identities and a certificate, at an address that the namespaces reach."""
    identities = LocalIdentities.open_or_create(folder)
    certificates.make(identities.tls_files, (address,))
    port = free_port()
    settings = load({}, GPUPING_DATA_DIR=str(folder), NATS_HOST=address)
    async with own_server.running(settings, port) as bus:
        yield bus


def _kill_server(folder: Path) -> None:
    """Its supervisor starts it again."""
    os.kill(int((folder / "nats" / "nats-server.pid").read_text()), signal.SIGKILL)


def _services(folder: Path, bus: OwnServer) -> tuple[Attacked, Attacked, str]:
    port = free_port()
    found = []
    for role in ("scheduler", "gateway"):
        settings = bus.settings_of(role)
        environment = {
            "NATS_URL": str(settings.NATS_URL),
            "NATS_CA": str(settings.NATS_CA),
            "NATS_CREDS": str(settings.NATS_CREDS),
            "GATEWAY_PORT": str(port),
            "GPUPING_DATA_DIR": str(folder / role),
            "HOME": str(folder),
        }
        if settings.NATS_SYSTEM_CREDS:
            environment["NATS_SYSTEM_CREDS"] = settings.NATS_SYSTEM_CREDS
        words = (sys.executable, "-m", "gpuping", role)
        found.append(Attacked(role, words, environment, folder))
    return found[0], found[1], f"http://127.0.0.1:{port}"


def _host(folder: Path, bus: OwnServer, namespaces: Namespaces, name: str) -> Attacked:
    settings = bus.settings_of_agent(name)
    address = urlsplit(str(settings.NATS_URL))
    words = (sys.executable, str(_HOST), str(address.hostname), str(address.port))
    command = (*namespaces.prefix(name), *words, str(settings.NATS_CA), str(settings.NATS_CREDS))
    words = (*command, name, str(_taken(folder, name)))
    return Attacked(name, words, {"HOME": str(folder)}, folder)


def _taken(folder: Path, name: str) -> Path:
    """Where a host writes when the server took its connection."""
    return folder / f"{name}.taken"


def main() -> int:
    """Prints the figures; 1 where one does not hold."""
    if not is_root:
        say("presence needs root: each host has a network namespace of its own")
        return 2
    found = asyncio.run(measure())
    say("\n".join(one.line() for one in found))
    return 0 if all(one.holds for one in found) else 1
