"""The peer's fleet.

One process that answers every scrape with the same small page, as fast as Python can.

Kind to the peer: the page is made once, no request is parsed, connections are kept. Each target has
a path of its own on a few addresses, so that Prometheus shares warm connections as our agents share
one of NATS. Prints the port it listens on, and for `GET /count` how many scrapes it answered.
"""

import asyncio

import uvloop

# what an agent's report says, as counters: 6 samples where the report has more than 30 values
PAGE = b"""gpu_seconds_total{state="up"} 900
gpu_seconds_total{state="degraded"} 0
gpu_seconds_total{state="down"} 0
gpu_seconds_total{state="unknown"} 0
gpu_seconds_total{state="excused"} 0
gpu_available 1
"""
SAMPLES = 6
COUNT_PATH = "/count"


def response(body: bytes) -> bytes:
    """A whole HTTP response."""
    head = (
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Target(asyncio.Protocol):
    """One kept connection."""

    answered = 0
    _scraped = response(PAGE)
    _count = f"GET {COUNT_PATH} ".encode()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]  # TCP is one

    def data_received(self, data: bytes) -> None:
        if data.startswith(self._count):
            self._transport.write(response(str(Target.answered).encode()))
        elif data.endswith(
            b"\r\n\r\n"
        ):  # a request without a body; its last piece, if it came in pieces
            Target.answered += 1
            self._transport.write(self._scraped)


async def main() -> None:
    # all of 127.0.0.0/8: Prometheus keeps few idle connections to one address
    server = await asyncio.get_running_loop().create_server(Target, "0.0.0.0", 0, backlog=4096)  # noqa: S104
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
