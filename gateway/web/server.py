"""uvicorn, made to live inside a larger program: no signals of its own, ready and stopped as events, one socket.

Also the one answer that no application sees: bytes that are no HTTP get a problem document like everything else.
"""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from bus.errors import SettingsError
from gateway.web.problems import ProblemError, as_asgi

GRACE_SECONDS = 2  # for answers that are under way when the gateway stops
KEEP_ALIVE_SECONDS = 30
BACKLOG = 1024


class Server(uvicorn.Server):
    """Serves until `stop`. `ready` is set once it answers, `stopped` once it no longer does."""

    def __init__(self, application: Any) -> None:
        super().__init__(_config(application))
        self.ready = asyncio.Event()
        self.stopped = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the program's business."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Uvicorn's own, and then says so."""
        await super().startup(sockets)
        self.ready.set()

    async def answer(self, listener: socket.socket) -> None:
        """Serves on a socket that listens; closes it."""
        try:
            await self.serve([listener])
        finally:
            self.stopped.set()

    async def stop(self) -> None:
        """Ends in good order, within about GRACE_SECONDS."""
        self.should_exit = True
        await self.stopped.wait()


class _Protocol(H11Protocol):
    def send_400_response(self, msg: str) -> None:
        """Uvicorn's hook for a request that cannot be read: ours is a problem document."""
        status, headers, body = as_asgi(ProblemError(400, msg))
        if (
            self.conn.our_state is h11.IDLE
        ):  # else an answer is under way, and nothing can be said any more
            for event in (
                h11.Response(status_code=status, headers=[*headers, (b"connection", b"close")]),
                h11.Data(data=body),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event))
        self.transport.close()


def _config(application: Any) -> uvicorn.Config:
    return uvicorn.Config(
        application,
        lifespan="off",
        ws="none",
        http=_Protocol,
        log_config=None,
        log_level="critical",  # what fails is logged by the door, with its reason
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nobody may claim another's address
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises SettingsError: one line that says what is in the way."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise SettingsError(f"GATEWAY_HOST={host!r}: {error.strerror or error}") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)  # so that a port in use is found out now
    except OSError as error:
        listener.close()
        raise SettingsError(
            f"GATEWAY_PORT={port}: cannot listen on {host}: {error.strerror or error}"
        ) from None
    return listener
