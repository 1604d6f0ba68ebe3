"""Speaks to the bus as no decent client would."""

import asyncio

from bus.transport.embedded_server import EmbeddedServer


async def send(server: EmbeddedServer, frames: bytes) -> None:
    """Protocol frames as they are; the server has taken them when this returns."""
    reader, writer = await asyncio.open_connection(*server.url.removeprefix("nats://").split(":"))
    await reader.readline()
    writer.write(
        b'CONNECT {"verbose":false,"pedantic":false,"headers":true}\r\n' + frames + b"PING\r\n"
    )
    assert (await reader.readline()).startswith(b"PONG")
    writer.close()
