"""uvicorn as a part of a larger program: it takes no signals and serves one given socket.

It also answers bytes that are not HTTP with a problem document. No application sees those.
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

SHUTDOWN_SECONDS = 2  # for responses that are in progress when the gateway stops
KEEP_ALIVE_SECONDS = 30
BACKLOG = 1024


class Server(uvicorn.Server):
    """Serves until `stop`. `ready` is set once it accepts requests, `stopped` once it has ended."""

    def __init__(self, application: Any) -> None:
        super().__init__(_config(application))
        self.ready = asyncio.Event()
        self.stopped = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Overrides uvicorn's: the program around us handles the signals."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Overrides uvicorn's: sets `ready` afterwards."""
        await super().startup(sockets)
        self.ready.set()

    async def answer(self, listener: socket.socket) -> None:
        """Serves on a listening socket until `stop`, and closes it."""
        try:
            await self.serve([listener])
        finally:
            self.stopped.set()

    async def stop(self) -> None:
        """Lets responses finish for up to SHUTDOWN_SECONDS, then ends."""
        self.should_exit = True
        await self.stopped.wait()


class _ProblemProtocol(H11Protocol):
    def send_400_response(self, msg: str) -> None:
        """Overrides uvicorn's: answers an unreadable request with a problem document."""
        # In any other state a response has begun, and all that is left is to close.
        if self.conn.our_state is h11.IDLE:
            status, headers, body = as_asgi(ProblemError(400, msg))
            headers.append((b"connection", b"close"))
            response = h11.Response(status_code=status, headers=headers)
            for event in (response, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event))
        self.transport.close()


def _config(application: Any) -> uvicorn.Config:
    return uvicorn.Config(
        application,
        lifespan="off",
        ws="none",
        http=_ProblemProtocol,
        log_config=None,
        log_level="critical",  # the outer middleware logs what fails, with its reason
        access_log=False,
        server_header=False,
        proxy_headers=False,  # a client could otherwise claim any address
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises SettingsError, which names the setting that cannot be used."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise SettingsError(f"GATEWAY_HOST={host!r}: {error.strerror or error}") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)  # a port that is taken is only reported here
    except OSError as error:
        listener.close()
        reason = error.strerror or error
        raise SettingsError(f"GATEWAY_PORT={port}: cannot listen on {host}: {reason}") from None
    return listener
