"""uvicorn as a part of a larger program: it takes no signals and serves one given socket.

It also answers bytes that are not HTTP with a problem document. No application sees those.
"""

import asyncio
import contextlib
import math
import socket
from collections.abc import Iterator
from functools import partial
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from bus.clock import boottime
from bus.errors import SettingsError
from gateway.web.connections import (
    BACKLOG,
    BODY_SECONDS,
    HEAD_SECONDS,
    KEEP_ALIVE_SECONDS,
    STALLED_WRITE_SECONDS,
    Connections,
)
from gateway.web.problems import ProblemError, as_asgi

SHUTDOWN_SECONDS = 2  # for responses that are in progress when the gateway stops


class Server(uvicorn.Server):
    """Serves until `stop`. `ready` is set once it accepts requests, `stopped` once it has ended."""

    def __init__(self, application: Any, connections: Connections) -> None:
        self.connections = connections
        super().__init__(_config(application, self.connections))
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

    async def on_tick(self, counter: int) -> bool:
        """Overrides uvicorn's, which calls it ten times a second."""
        if counter % 10 == 0:
            self.connections.end_late_ones(boottime())
        return await super().on_tick(counter)

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


class _Protocol(H11Protocol):
    """One connection: answers what is not HTTP with a problem document, and keeps its deadline."""

    def __init__(self, *, connections: Connections, **uvicorns: Any) -> None:
        super().__init__(**uvicorns)
        self._connections = connections
        # Only an event stream or an answer that is being computed may take for ever.
        self.deadline = boottime() + HEAD_SECONDS

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Overrides uvicorn's: keeps within the limit of connections."""
        super().connection_made(transport)
        admission = self._connections.add(self)
        if admission == "refused":
            self.app = _refuse
        if admission == "closed":
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Overrides uvicorn's: forgets the connection."""
        self._connections.remove(self)
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """Overrides uvicorn's: sets the deadline of what is to come next."""
        waited_for_body = self._waits_for_body()
        super().handle_events()
        if self._waits_for_body():
            if not waited_for_body:
                self.deadline = boottime() + BODY_SECONDS
        elif self.cycle is not None and not self.cycle.response_complete:
            self.deadline = math.inf

    def on_response_complete(self) -> None:
        """Overrides uvicorn's: the next request on this connection has time from now on."""
        self.deadline = boottime() + KEEP_ALIVE_SECONDS + HEAD_SECONDS
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Overrides uvicorn's: the client takes nothing, which it may do for a while."""
        self.deadline = min(self.deadline, boottime() + STALLED_WRITE_SECONDS)
        super().pause_writing()

    def resume_writing(self) -> None:
        """Overrides uvicorn's: the client has taken what was waiting for it."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.deadline = math.inf
        super().resume_writing()

    def end_late(self) -> None:
        """Ends the connection after its deadline."""
        self._end(ProblemError(408, "the request did not arrive in time"))

    def make_room(self) -> None:
        """Ends the connection for one that may have a whole request."""
        self._end(_too_many_connections())

    def send_400_response(self, msg: str) -> None:
        """Overrides uvicorn's: answers an unreadable request with a problem document."""
        self._end(ProblemError(400, msg))

    def _waits_for_body(self) -> bool:
        return self.cycle is not None and self.cycle.more_body and not self.cycle.response_complete

    def _end(self, problem: ProblemError) -> None:
        """Answers with the problem if no response has begun, and closes."""
        is_answerable = self.conn.our_state is h11.IDLE and self.conn.their_state is not h11.DONE
        if not is_answerable:
            self.transport.abort()
            return
        status, headers, body = as_asgi(problem)
        headers.append((b"connection", b"close"))
        response = h11.Response(status_code=status, headers=headers)
        for event in (response, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event))
        self.transport.close()


async def _refuse(
    _scope: Any,
    _receive: Any,
    send: Any,
) -> None:
    """The application of a connection for which there is no room."""
    status, headers, body = as_asgi(_too_many_connections())
    headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _too_many_connections() -> ProblemError:
    return ProblemError(
        503, "too many connections are open; try again", headers={"Retry-After": "2"}
    )


def _config(application: Any, connections: Connections) -> uvicorn.Config:
    return uvicorn.Config(
        application,
        lifespan="off",
        ws="none",
        http=partial(_Protocol, connections=connections),  # type: ignore[arg-type]
        log_config=None,
        log_level="critical",  # the outer middleware logs what fails, with its reason
        access_log=False,
        server_header=False,
        proxy_headers=False,  # a client could otherwise claim any address
        backlog=BACKLOG,
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
