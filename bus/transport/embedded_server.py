"""The embedded nats-server: a child process with its data under the data dir, for `gpuping up` and tests.

It listens on loopback only, fsyncs every write before it acknowledges (`sync_interval: always`; the
default loses acknowledged writes on power failure), and dies with its parent, however the parent
dies.
"""

import asyncio
import ctypes
import json
import secrets
import shutil
import signal
import socket
import sysconfig
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import structlog

from bus.errors import BusError

log = structlog.get_logger("bus.transport.embedded_server")

DEFAULT_PORT = 4222
START_SECONDS = 20.0
STOP_SECONDS = 10.0
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class EmbeddedServer:
    """One nats-server child; `process` is for tests that kill or freeze it. It is started again when it dies."""

    def __init__(self, data_dir: Path, port: int | None = None) -> None:
        self.store = data_dir / "nats"
        self.port = _choose_port(port)
        self.process: asyncio.subprocess.Process | None = None
        self._supervisor: asyncio.Task[None] | None = None
        # secrets of this run only: services need none on loopback, the system account is nobody's
        self._password = secrets.token_urlsafe(24)

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Listens when this returns. Raises BusError with the server's last words when it does not come up."""
        self.store.mkdir(parents=True, exist_ok=True)
        await _wait_for_predecessor(self._pid_file)
        await self._launch()
        self._supervisor = asyncio.create_task(self._start_again())

    async def stop(self) -> None:
        """Ends the child in good order, by force when it does not listen."""
        if self._supervisor:
            self._supervisor.cancel()
        process = self.process
        if process is None or process.returncode is not None:
            return
        process.send_signal(signal.SIGCONT)
        process.terminate()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    @property
    def _pid_file(self) -> Path:
        return self.store / "nats-server.pid"

    @property
    def _log_file(self) -> Path:
        return self.store / "nats-server.log"

    async def _launch(self) -> None:
        config = self.store / "nats-server.conf"
        config.touch(mode=0o600)
        config.write_text(self._config())
        self.process = await asyncio.create_subprocess_exec(
            *(str(find_binary()), "-c", str(config)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the parent, which stops this child in good order
            preexec_fn=_die_with_parent,
        )
        await self._listening()

    async def _listening(self) -> None:
        assert self.process  # noqa: S101  # launched above
        deadline = asyncio.get_running_loop().time() + START_SECONDS
        while asyncio.get_running_loop().time() < deadline:
            if self.process.returncode is not None:
                break
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                async with asyncio.timeout(5):
                    greeting = await reader.readline()
                writer.close()
                if greeting.startswith(b"INFO"):
                    return
            except OSError:
                await asyncio.sleep(0.02)  # a server that starts can only be asked again
        words = (
            self._log_file.read_text(errors="replace").splitlines()[-3:]
            if self._log_file.exists()
            else []
        )
        raise BusError(
            f"the embedded nats-server did not come up on port {self.port}: {' | '.join(words) or 'no log'}"
        )

    async def _start_again(self) -> None:
        while self.process is not None:
            code = await self.process.wait()
            log.error("nats_server_died", code=code, action="starting it again")
            try:
                await self._launch()
            except BusError as error:
                log.error("nats_server_failed", detail=str(error), action="trying again in 5 s")
                await asyncio.sleep(5)

    def _config(self) -> str:
        """Accounts SYS and GPUPING from the start; on loopback, and without identities, anybody is GPUPING."""
        quoted = (
            json.dumps
        )  # of a path or a secret: the same quoting as the server's configuration language
        return f"""\
# written by gpuping at each start
server_name: gpuping
host: 127.0.0.1
port: {self.port}
pid_file: {quoted(str(self._pid_file))}
log_file: {quoted(str(self._log_file))}
logfile_size_limit: 10MB
max_payload: 1MB
jetstream {{
  store_dir: {quoted(str(self.store / "jetstream"))}
  sync_interval: always
}}
accounts {{
  SYS {{ users: [ {{ user: system, password: {quoted(self._password)} }} ] }}
  GPUPING {{ jetstream: enabled, users: [ {{ user: local, password: {quoted(self._password)} }} ] }}
}}
system_account: SYS
no_auth_user: local
"""


@asynccontextmanager
async def running(data_dir: Path, port: int | None = None) -> AsyncIterator[EmbeddedServer]:
    """An embedded server for the length of a block."""
    server = EmbeddedServer(data_dir, port)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


def find_binary() -> Path:
    """The nats-server of the wheel, or else of the PATH. Raises BusError that says what to install."""
    bundled = Path(sysconfig.get_path("scripts")) / "nats-server"
    found = str(bundled) if bundled.exists() else shutil.which("nats-server")
    if not found:
        raise BusError(
            "no nats-server found: install gpuping[embedded], or set NATS_URL to a server that runs"
        )
    return Path(found)


def _choose_port(port: int | None) -> int:
    """A port asked for must be free; without one, 4222, or any free one when that is busy."""
    if port and not _is_free(port):
        raise BusError(
            f"NATS_PORT={port}: another program listens there; choose a free port, or 0 for any"
        )
    if port:
        return port
    if port is None and _is_free(DEFAULT_PORT):
        return DEFAULT_PORT
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        chosen: int = probe.getsockname()[1]
        return chosen


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _die_with_parent() -> None:
    """Runs in the child before exec: the kernel kills it when its parent is gone (Linux)."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


async def _wait_for_predecessor(pid_file: Path) -> None:
    """Two servers on one store would ruin it: the one of a run that was killed must be gone first."""
    try:
        pid = int(pid_file.read_text())
    except (OSError, ValueError):
        return
    for _ in range(int(STOP_SECONDS / 0.05)):
        if not _is_nats_server(pid):
            return
        await asyncio.sleep(0.05)  # not our child: only looking tells
    raise BusError(f"a nats-server (pid {pid}) still uses {pid_file.parent}: stop it first")


def _is_nats_server(pid: int) -> bool:
    try:
        return "nats-server" in str(Path(f"/proc/{pid}/exe").readlink())
    except OSError:
        return False
