"""The embedded nats-server: a child process for `gpuping up` and tests, its data in the data dir.

It listens on loopback, or elsewhere over TLS. It syncs every write to the disk before it
acknowledges it (`sync_interval: always`): the default loses acknowledged writes on a power failure.
It ends with its parent, however the parent ends.
"""

import asyncio
import ctypes
import os
import secrets
import shutil
import signal
import socket
import sysconfig
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import structlog

from bus.addresses import in_url
from bus.errors import BusError, GpupingError
from bus.identity.server.quoting import quoted
from bus.private_files import open_private

log = structlog.get_logger("bus.transport.embedded_server")

IdentityConfig = Callable[[], str]  # lines of the server's configuration

DEFAULT_PORT = 4222
LOOPBACK = "127.0.0.1"
EVERY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104  # compared with
START_SECONDS = 20.0
GREETING_SECONDS = 5.0
STOP_SECONDS = 10.0
RETRY_SECONDS = 2.0
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class EmbeddedServer:
    """One nats-server child, which is started again when it dies.

    `process` is public for tests, which kill it or freeze it.
    """

    def __init__(
        self,
        data_dir: Path,
        port: int | None = None,
        identity_config: IdentityConfig | None = None,
        host: str = LOOPBACK,
    ) -> None:
        """Without `identity_config`, whoever reaches the port may do everything; for tests.

        `host` is the address to listen on. Outside loopback `identity_config` must ask for TLS.

        It is called at each start of the server, so that a server that died comes back with the
        revocations of meanwhile.
        """
        self.store = data_dir / "nats"
        self._identity_config = identity_config
        self._host = host
        self.port = _choose_port(port, host)
        self.process: asyncio.subprocess.Process | None = None
        self._supervisor: asyncio.Task[None] | None = None
        # of this run only: on loopback services need no password
        self._log_start = 0  # where this run begins in the log
        self._password = secrets.token_urlsafe(24)

    @property
    def url(self) -> str:
        """The address for clients on this machine, where it does not use TLS."""
        return f"nats://{in_url(self.local_host)}:{self.port}"

    @property
    def local_host(self) -> str:
        """The address by which this machine reaches it."""
        if self._host in EVERY_ADDRESS:
            return LOOPBACK
        return self._host

    async def start(self) -> None:
        """Starts the server, which listens when this returns.

        Raises BusError with the last lines of the server's log when it does not come up.
        """
        self.store.mkdir(
            mode=0o700,
            parents=True,
            exist_ok=True,
        )
        await _wait_for_predecessor(self._pid_file)
        self._refuse_links()
        await self._launch()
        self._supervisor = asyncio.create_task(self._start_again())

    def _refuse_links(self) -> None:
        """The server itself would write through a link."""
        for path in (self._pid_file, self._log_file, self.store / "jetstream"):
            if path.is_symlink():
                raise BusError(f"{path} is a symbolic link, and nothing is written through it")

    async def stop(self) -> None:
        """Stops the child in good order, or by force when it has not stopped after 10 s."""
        if self._supervisor:
            self._supervisor.cancel()
        process = self.process
        if process is None or not self.is_running:
            return
        process.send_signal(signal.SIGCONT)
        await self.end(signal.SIGTERM)

    async def end(self, how: signal.Signals, patience_seconds: float = STOP_SECONDS) -> None:
        """Ends the child by this signal, or by force when it has not ended after that long.

        It is started again, unless `stop` ends it.
        """
        process = self.process
        if process is None or not self.is_running:
            return
        process.send_signal(how)
        try:
            async with asyncio.timeout(patience_seconds):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    @property
    def is_running(self) -> bool:
        """Whether the child was started and has not ended; it may be frozen."""
        return self.process is not None and self.process.returncode is None

    async def greets(self) -> bool:
        """Whether a server answers on the port: the first thing that it says to any client."""
        reader, writer = await asyncio.open_connection(self.local_host, self.port)
        try:
            greeting = await reader.readline()
        finally:
            writer.close()
        return greeting.startswith(b"INFO")

    @property
    def _pid_file(self) -> Path:
        return self.store / "nats-server.pid"

    @property
    def _log_file(self) -> Path:
        return self.store / "nats-server.log"

    @property
    def _output_file(self) -> Path:
        """What the server says before it has opened its log, such as a fault of its settings."""
        return self.store / "nats-server.out"

    @property
    def _last_words_file(self) -> Path:
        """What the server wrote there in the run that ended last by a fault."""
        return self.store / "nats-server.died"

    async def _launch(self) -> None:
        config = self.store / "nats-server.conf"
        with open_private(config, os.O_TRUNC) as file:
            file.write(self._config().encode())
        self._log_start = self._log_size()
        with open_private(self._output_file, os.O_TRUNC) as output:
            self.process = await asyncio.create_subprocess_exec(
                *(str(find_binary()), "-c", str(config)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is for the parent, which stops this child
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
                async with asyncio.timeout(GREETING_SECONDS):
                    if await self.greets():
                        return
            except OSError:
                await asyncio.sleep(0.02)  # nothing announces that the port is open
        raise BusError(
            f"the embedded nats-server did not come up on port {self.port}: {self._last_words()}"
        )

    def _last_words(self) -> str:
        """What the server said last in this run: on its output before it has a log, then there."""
        lines: list[str] = []
        if self._output_file.exists():
            lines += self._output_file.read_text(errors="replace").splitlines()
        if self._log_file.exists():
            with self._log_file.open("rb") as log_file:
                log_file.seek(self._log_start)
                lines += log_file.read().decode(errors="replace").splitlines()
        return " | ".join(lines[-3:]) or "it said nothing"

    def _log_size(self) -> int:
        if not self._log_file.exists():
            return 0
        return self._log_file.stat().st_size

    async def _start_again(self) -> None:
        while self.process is not None:
            code = await self.process.wait()
            log.error(
                "nats_server_died", code=code, last_words=self._keep_output(), action="restart"
            )
            while not await self._is_launched():  # noqa: ASYNC110  # each look is an attempt
                await asyncio.sleep(RETRY_SECONDS)

    async def _is_launched(self) -> bool:
        """Starts the child; returns False where that failed, which is logged.

        Whatever it was may pass: a full disk, descriptors that have run out, another program on
        the port, an identity that `gpuping creds` is writing.
        """
        try:
            await self._launch()
        except (GpupingError, OSError) as error:
            log.error("nats_server_start_failed", detail=str(error), retry_seconds=RETRY_SECONDS)
            # One that is slow to read a large store runs, and is waited for.
            return self.is_running
        return True

    def _keep_output(self) -> str | None:
        """What the child wrote when it died, such as where each thread was, stays in a file."""
        try:
            if self._output_file.stat().st_size == 0:
                return None
            self._output_file.replace(self._last_words_file)
        except OSError:
            return None
        return str(self._last_words_file)

    def _config(self) -> str:
        if self._identity_config is None:
            identity_config = self._open_accounts()
        else:
            identity_config = self._identity_config()
        return f"""\
# written by gpuping at each start
server_name: gpuping
host: {quoted(self._host)}
port: {self.port}
pid_file: {quoted(self._pid_file)}
log_file: {quoted(self._log_file)}
logfile_size_limit: 10MB
# of each refused message there is a line: without an end, a host could fill the disk with them
logfile_max_num: 5
max_payload: 1MB
# a client that is frozen or cut off is noticed within 15 s
ping_interval: "4s"
ping_max: 2
jetstream {{
  store_dir: {quoted(self.store / "jetstream")}
  sync_interval: always
}}
{identity_config}"""

    def _open_accounts(self) -> str:
        """Accounts SYS and GPUPING; anonymous clients belong to GPUPING."""
        password = quoted(self._password)
        return f"""\
accounts {{
  SYS {{ users: [ {{ user: system, password: {password} }} ] }}
  GPUPING {{ jetstream: enabled, users: [ {{ user: local, password: {password} }} ] }}
}}
system_account: SYS
no_auth_user: local
"""


@asynccontextmanager
async def running(
    data_dir: Path,
    port: int | None = None,
    identity_config: IdentityConfig | None = None,
    host: str = LOOPBACK,
) -> AsyncIterator[EmbeddedServer]:
    """An embedded server for the length of a block."""
    server = EmbeddedServer(data_dir, port, identity_config, host)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


def accounts_folder(data_dir: Path) -> Path:
    """Where the server of a data dir keeps the streams of each account."""
    return data_dir / "nats" / "jetstream" / "jetstream"


def find_binary() -> Path:
    """The nats-server of the wheel, else of the PATH. Raises BusError with what to install."""
    bundled = Path(sysconfig.get_path("scripts")) / "nats-server"
    found = str(bundled) if bundled.exists() else shutil.which("nats-server")
    if not found:
        raise BusError(
            "no nats-server found: pip install '.[embedded]' in a clone, "
            "or set NATS_URL to a server that runs"
        )
    return Path(found)


def _choose_port(port: int | None, host: str) -> int:
    """The port asked for, which must be free. Without one 4222, or any free port."""
    if port and not _is_free(host, port):
        raise BusError(
            f"NATS_PORT={port}: another program listens there; choose a free port, or 0 for any"
        )
    if port:
        return port
    if port is None and _is_free(host, DEFAULT_PORT):
        return DEFAULT_PORT
    with socket.socket(_family(host)) as probe:
        probe.bind((host, 0))
        chosen: int = probe.getsockname()[1]
        return chosen


def _is_free(host: str, port: int) -> bool:
    with socket.socket(_family(host)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def _family(host: str) -> socket.AddressFamily:
    if ":" in host:
        return socket.AF_INET6
    return socket.AF_INET


def _die_with_parent() -> None:
    """Runs in the child before exec: the kernel kills the child when its parent ends (Linux)."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


async def _wait_for_predecessor(pid_file: Path) -> None:
    """Waits for the server of a killed run to end. Two servers would corrupt one store.

    Raises BusError when it still runs after STOP_SECONDS.
    """
    try:
        pid = int(pid_file.read_text())
    except (OSError, ValueError):
        return
    for _ in range(int(STOP_SECONDS / 0.05)):
        if not _is_nats_server(pid):
            return
        await asyncio.sleep(0.05)  # it is no child of this process, so it cannot be waited for
    raise BusError(f"a nats-server (pid {pid}) still uses {pid_file.parent}: stop it first")


def _is_nats_server(pid: int) -> bool:
    try:
        program = Path(f"/proc/{pid}/exe").readlink()
    except OSError:
        return False
    return "nats-server" in str(program)
