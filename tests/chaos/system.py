"""The system under attack: servers, schedulers, storage, gateway and hosts, each a real process."""

import asyncio
import os
import shutil
import sys
import tempfile
import urllib.request
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import nats.errors
from msgspec import Struct
from nats.aio.msg import Msg

from bus.background import cancel_all
from bus.clock import boottime
from bus.contract import subjects
from bus.contract.messages import decode
from bus.contract.questions import LiveEvent, RegisterReply, RegisterRequest
from bus.errors import BadMessageError, BusError
from bus.settings import load
from bus.transport import connection, embedded_server, jetstream_api, layout, micro_services
from bus.transport.availability import when_available
from tests.chaos.machine import Namespaces, SmallDisk, is_root
from tests.chaos.network import Link
from tests.chaos.processes import Attacked, build_clock
from tests.ports import free_ports

START_SECONDS = 180.0  # many processes start at once, on a machine that others use too
REGISTERED_AT_ONCE = 20
STALL_SECONDS = 0.4  # of this machine, which everybody on it shares
CLIENTS = 4222
ROUTES = 6222
MONITORING = 8222


class Shape(Struct, frozen=True):
    """How large the system is, and how often hosts are pinged."""

    servers: int = 1
    schedulers: int = 2
    storages: int = 1
    fleets: int = 2
    hosts: int = 200
    interval_seconds: float = 3.0
    timeout_seconds: float = 4.0
    replicas: int | None = None  # as many as servers, where nothing else is said
    storage_megabytes: int | None = None  # STORAGE_MEMORY_LIMIT_MB
    source: Path | None = None  # the tree of another release, which the services are run from


class Stretch(Struct, frozen=True):
    """Time in which something was wrong; CLOCK_BOOTTIME, seconds."""

    began: float
    ended: float


class System:
    """Everything, and from outside what it announced and when this machine stalled."""

    def __init__(self, shape: Shape, folder: Path | None = None) -> None:
        self.shape = shape
        self.folder = folder or Path(tempfile.mkdtemp(prefix="gpuping-chaos-"))
        self.server_names = [f"server-{number + 1}" for number in range(shape.servers)]
        self.processes: dict[str, Attacked] = {}
        self.links: dict[str, list[Link]] = {}
        self.disks: dict[str, SmallDisk] = {}
        self.namespaces = Namespaces(self.server_names) if is_root else None
        self.hosts = [f"h{number:04d}" for number in range(shape.hosts)]
        self.stalls: list[Stretch] = []
        self.announced: dict[tuple[str, int], datetime] = {}  # outcomes, by host and ping_seq
        self._tasks: list[asyncio.Task[None]] = []

    # ---- its parts ----

    async def open(self) -> None:
        """Every host is registered when this returns."""
        (self.folder / "records").mkdir(parents=True, exist_ok=True)
        self._clock_library = build_clock(self.folder)
        if self.namespaces is not None:
            await self.namespaces.make()
        await self._make_disks()
        self._make_servers()
        for name in self.server_names:
            self.start(name)
        self.server_url = await self._link("harness")
        self.settings = load({}, NATS_URL=self.server_url, **self._numbers())
        self.bus = await connection.connect(self.settings, "chaos")
        await self.until_jetstream_answers()
        if self.shape.source is None:  # another release makes the streams that it knows
            await when_available(lambda: layout.ensure(self.bus, self.settings))
        await self.bus.subscribe(subjects.EVENT_ALL, cb=self._witness)
        self._tasks.append(asyncio.create_task(self._watch_stalls()))
        await self._make_services()
        await self._register()

    async def close(self, *, keep: bool) -> None:
        await cancel_all(self._tasks)
        with suppress(AttributeError):  # it was not opened that far
            await self.bus.farewell()
        for links in self.links.values():
            for link in links:
                await link.stop()
        for disk in self.disks.values():
            disk.free()
        if not keep:
            for disk in self.disks.values():
                await disk.remove()
            shutil.rmtree(self.folder, ignore_errors=True)
        if self.namespaces is not None:
            await self.namespaces.remove()

    def start(self, name: str) -> None:
        self._tasks.append(asyncio.create_task(self.processes[name].run()))

    @property
    def services(self) -> list[str]:
        return [name for name in self.processes if not name.startswith("server")]

    async def _make_disks(self) -> None:
        if not is_root:
            return
        storages = [f"storage-{number + 1}" for number in range(self.shape.storages)]
        for name in (*self.server_names, *storages):
            disk = SmallDisk(self.folder / f"{name}.disk")
            await disk.make()
            self.disks[name] = disk

    def data_of(self, name: str) -> Path:
        folder = self.folder / f"{name}.data"
        if name in self.disks:
            folder = self.disks[name].folder / "data"
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    def _make_servers(self) -> None:
        if self.namespaces is not None:
            hosts = [self.namespaces.addresses[name] for name in self.server_names]
            ports = [(CLIENTS, ROUTES, MONITORING)] * len(hosts)
        else:
            hosts = ["127.0.0.1"] * self.shape.servers
            free = iter(free_ports(3 * self.shape.servers))
            ports = [(next(free), next(free), next(free)) for _ in hosts]
        self._server_addresses = [(host, port[0]) for host, port in zip(hosts, ports, strict=True)]
        self._monitoring = {
            name: f"http://{host}:{port[2]}/healthz"
            for name, host, port in zip(self.server_names, hosts, ports, strict=True)
        }
        routes = ", ".join(
            f'"nats-route://{host}:{port[1]}"' for host, port in zip(hosts, ports, strict=True)
        )
        for name, host, port in zip(self.server_names, hosts, ports, strict=True):
            config = self.folder / f"{name}.conf"
            config.write_text(self._server_config(name, host, port, routes))
            words = (str(embedded_server.find_binary()), "-c", str(config))
            if self.namespaces is not None:
                words = (*self.namespaces.prefix(name), *words)
            self.processes[name] = Attacked(name, words, {}, self.folder)

    def _server_config(self, name: str, host: str, ports: tuple[int, int, int], routes: str) -> str:
        config = f"""\
server_name: {name}
host: {host}
port: {ports[0]}
http: "{host}:{ports[2]}"
ping_interval: "4s"
ping_max: 2
jetstream {{ store_dir: "{self.data_of(name)}", sync_interval: always, max_file_store: 4GB }}
"""
        if self.shape.servers > 1:
            config += f"""\
cluster {{
  name: gpuping, host: {host}, port: {ports[1]}, routes: [{routes}], no_advertise: true
}}
"""
        return config

    def _numbers(self) -> dict[str, float]:
        """The settings that all services share."""
        return {
            "PING_BASE_INTERVAL_MINUTES": self.shape.interval_seconds / 60,
            "PING_MAX_INTERVAL_HOURS": 4 * self.shape.interval_seconds / 3600,
            "PING_RESPONSE_TIMEOUT_SECONDS": self.shape.timeout_seconds,
            "PING_MAX_CONCURRENT_AGENTS": 1000,
            "GPUPING_HISTORY_STREAM_GB": 1,
            "GPUPING_REPLICAS": self.shape.replicas or self.shape.servers,
        }

    async def _make_services(self) -> None:
        python = (sys.executable, "-m")
        for number in range(self.shape.fleets):
            await self._add(f"fleet-{number + 1}", (*python, "tests.chaos.fleet"))
        for number in range(self.shape.schedulers):
            await self._add(f"scheduler-{number + 1}", (*python, "gpuping", "scheduler"))
        for number in range(self.shape.storages):
            await self._add(f"storage-{number + 1}", (*python, "gpuping", "storage"))
        await self._add("gateway-1", (*python, "gpuping", "gateway"))

    async def _add(self, name: str, words: tuple[str, ...]) -> None:
        """Makes and starts a process that has links of its own to each server."""
        url = await self._link(name)
        numbers = {key: f"{value!r}" for key, value in self._numbers().items()}
        environment = {"NATS_URL": url, "LOG_LEVEL": "warning", "LOG_FORMAT": "json"} | numbers
        if self.shape.storage_megabytes is not None:
            environment["STORAGE_MEMORY_LIMIT_MB"] = str(self.shape.storage_megabytes)
        environment["PYTHONFAULTHANDLER"] = "1"  # a crash in C says where
        environment["GPUPING_DATA_DIR"] = str(self.data_of(name))
        environment["STORAGE_NAME"] = name
        cwd = None
        if name.startswith("fleet"):
            share = self.shape.hosts // self.shape.fleets
            first = share * (int(name[-1]) - 1)
            words = (*words, str(self.folder / "records"), name, str(first), str(share))
        else:
            cwd = self.shape.source
        if name.startswith("gateway"):
            environment["GATEWAY_PORT"] = "0"
        self.processes[name] = Attacked(
            name, words, environment, self.folder, self._clock_library, cwd
        )
        self.start(name)

    async def _link(self, name: str) -> str:
        """Makes links of its own to each server; returns the NATS_URL that goes through them."""
        links = [Link(host, port) for host, port in self._server_addresses]
        for link in links:
            await link.start()
        self.links[name] = links
        return ",".join(f"nats://127.0.0.1:{link.port}" for link in links)

    async def _register(self) -> None:
        async with asyncio.timeout(START_SECONDS):
            for first in range(0, len(self.hosts), REGISTERED_AT_ONCE):
                some = self.hosts[first : first + REGISTERED_AT_ONCE]
                await asyncio.gather(*(self._register_one(name) for name in some))

    async def _register_one(self, name: str) -> None:
        while True:
            try:
                await micro_services.ask(
                    self.bus,
                    subjects.register(name),
                    RegisterRequest(),
                    RegisterReply,
                    who="scheduler",
                )
            except BusError:
                await asyncio.sleep(0.2)
            else:
                return

    async def run_gpuping(self, *words: str, seconds: float, url: str | None = None) -> int:
        """Runs a command of `gpuping` on this system; returns its exit code."""
        environment = {
            "PATH": os.environ["PATH"],
            "NATS_URL": url or self.server_url,
            "GPUPING_DATA_DIR": str(self.folder / "commands.data"),
            "GPUPING_HISTORY_STREAM_GB": "1",
        }
        with (self.folder / "commands.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "gpuping", *words),
                env=environment,
                cwd=Path(__file__).parents[2],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
            try:
                async with asyncio.timeout(seconds):
                    return await process.wait()
            except TimeoutError:
                process.kill()
                return await process.wait()

    # ---- looked at from outside ----

    async def _witness(self, message: Msg) -> None:
        """Notes each outcome that a scheduler announced: it had been acknowledged by the bus."""
        with suppress(BadMessageError):
            event = decode(message.data, LiveEvent)
            if event.ping is not None:
                key = (event.agent_id, event.ping.ping_seq)
                self.announced[key] = event.ping.pinged_at

    async def _watch_stalls(self) -> None:
        while True:
            now = boottime()
            await asyncio.sleep(0.05)
            if boottime() - now > STALL_SECONDS:
                self.stalls.append(Stretch(now, boottime()))

    async def outcome_counts(self) -> dict[str, int]:
        """How many outcomes the history has of each host. Raises BusError."""
        verb = f"STREAM.INFO.{subjects.HISTORY_STREAM}"
        body = {"subjects_filter": f"{subjects.HISTORY_PREFIX}*"}
        information = await jetstream_api.call(self.bus, verb, body, timeout=2.0)
        counts = information["state"].get("subjects") or {}
        return {subjects.last_token(subject): count for subject, count in counts.items()}

    async def until_jetstream_answers(self, seconds: float = START_SECONDS) -> bool:
        """Returns whether it does within so long."""
        deadline = boottime() + seconds
        while boottime() < deadline:
            with suppress(BusError, nats.errors.Error):
                await jetstream_api.call(self.bus, "INFO", timeout=1.0)
                return True
            await asyncio.sleep(0.2)
        return False

    async def is_healthy(self, server: str) -> bool:
        """What the server says of itself, as a health check hears it."""
        return await asyncio.to_thread(_answers, self._monitoring[server])


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310
            return answer.status == 200
    except OSError:
        return False
