"""The network between a process and a server: a proxy on loopback that can be cut, stalled, slowed.

Cut connections are closed and new ones refused. A stalled one stays open, and nothing passes, as
when a cable was pulled.
"""

import asyncio
import contextlib
from typing import Literal

Condition = Literal["open", "cut", "stalled", "slow"]
SLOW_SECONDS = 0.15  # for each piece, in each direction
PIECE_BYTES = 64 * 1024


class Link:
    """One process's way to one server; `port` is where the process connects."""

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)
        self._condition: Condition = "open"
        self._flows = asyncio.Event()
        self._flows.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self.set("cut")
        self._flows.set()
        self._server.close()

    def set(self, condition: Condition) -> None:
        self._condition = condition
        if condition == "stalled":
            self._flows.clear()
        else:
            self._flows.set()
        if condition == "cut":
            for writer in self._writers:
                writer.transport.abort()
            self._writers.clear()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._flows.wait()
        if self._condition == "cut":
            writer.transport.abort()
            return
        try:
            up_reader, up_writer = await asyncio.open_connection(*self._address)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, up_writer}
        await asyncio.gather(self._pump(reader, up_writer), self._pump(up_reader, writer))
        self._writers -= {writer, up_writer}

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(PIECE_BYTES):
                if self._condition == "slow":
                    await asyncio.sleep(SLOW_SECONDS)
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
        writer.close()
