"""A real cluster of three nats-servers on loopback, each of which can be killed and frozen."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import nats.errors

from bus.errors import BusError
from bus.settings import Settings
from bus.transport import connection, embedded_server, jetstream_api
from tests.ports import free_ports

START_SECONDS = 60.0
SIZE = 3


class ClusterServer:
    """One server; `process` may be frozen."""

    def __init__(
        self, folder: Path, number: int, port: int, routes: list[int], more: str = ""
    ) -> None:
        self.name = f"n{number}"
        self.port = port
        self.process: asyncio.subprocess.Process | None = None
        self._config = folder / f"{self.name}.conf"
        store = json.dumps(str(folder / self.name))
        log_file = json.dumps(str(folder / f"{self.name}.log"))
        peers = ", ".join(f'"nats-route://127.0.0.1:{route}"' for route in routes)
        self._config.write_text(f"""\
server_name: {self.name}
host: 127.0.0.1
port: {port}
log_file: {log_file}
ping_interval: "4s"
ping_max: 2
jetstream {{ store_dir: {store}, sync_interval: always }}
cluster {{
  name: gpuping
  host: 127.0.0.1
  port: {routes[number]}
  routes: [{peers}]
}}
{more}""")

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            *(str(embedded_server.find_binary()), "-c", str(self._config)),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )

    async def kill(self) -> None:
        """SIGKILL; the process is gone when this returns."""
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()


class NatsCluster:
    """Three servers; `url` names all of them."""

    def __init__(
        self,
        folder: Path,
        ports: list[int] | None = None,
        more: Callable[[int], str] = lambda _: "",
    ) -> None:
        """`more` is what the configuration of a server has besides, by its number."""
        ports = ports or free_ports(2 * SIZE)
        self.servers = [
            ClusterServer(folder, number, ports[number], ports[SIZE:], more(number))
            for number in range(SIZE)
        ]

    @property
    def url(self) -> str:
        return ",".join(f"nats://127.0.0.1:{server.port}" for server in self.servers)

    def server(self, name: str) -> ClusterServer:
        return next(server for server in self.servers if server.name == name)


async def leader_of(bus: connection.Client, stream: str) -> str:
    """The name of the server that leads a stream."""
    info = await jetstream_api.call(bus, f"STREAM.INFO.{stream}")
    return str(info["cluster"]["leader"])


@asynccontextmanager
async def nats_cluster(
    folder: Path,
    ports: list[int] | None = None,
    more: Callable[[int], str] = lambda _: "",
    credentials: Path | None = None,
) -> AsyncIterator[NatsCluster]:
    """The servers for the length of a block; JetStream answers when it is entered."""
    cluster = NatsCluster(folder, ports, more)
    try:
        for server in cluster.servers:
            await server.start()
        await _until_it_answers(cluster, credentials)
        yield cluster
    finally:
        for server in cluster.servers:
            await server.kill()


async def _until_it_answers(cluster: NatsCluster, credentials: Path | None) -> None:
    chosen = Settings(NATS_URL=cluster.url)
    prefix = "_INBOX"
    if credentials is not None:
        chosen = Settings(NATS_URL=cluster.url, NATS_CREDS=str(credentials))
        prefix = "_INBOX._layout"
    async with (
        asyncio.timeout(START_SECONDS),
        connection.connected(chosen, "cluster", inbox_prefix=prefix) as client,
    ):
        while True:
            try:
                await jetstream_api.call(client, "INFO", timeout=1.0)
            except (BusError, nats.errors.Error):
                await asyncio.sleep(0.1)  # nothing announces the meta leader
            else:
                return
