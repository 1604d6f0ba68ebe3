"""Asks one question of an agent over HTTP, at an address that was checked, within limits.

The name is resolved once, every address that it has is checked, and the connection goes to one of
exactly those. So a name that leads elsewhere a moment later leads nowhere. No redirects are
followed and no proxy of the environment is used: httpcore does neither.
"""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import httpcore

from bus.errors import GpupingError
from bus.networks import AskableNetworks
from gateway.bridge.agent_url import AgentUrl

LONGEST_ANSWER_BYTES = 64 * 1024
_HEADERS = (
    (b"Accept", b"application/json"),
    (b"Accept-Encoding", b"identity"),
    (b"User-Agent", b"gpuping-bridge"),
    (b"Connection", b"close"),
)

# All addresses of a host and port. Raises OSError.
Resolve = Callable[[str, int], Awaitable[list[str]]]


class AddressRefusedError(GpupingError):
    """The agent's address leads, or also leads, where nothing may be asked."""


class UnreachableError(GpupingError):
    """No answer: the name does not resolve, nobody listens, or it took too long."""


class BadHttpAnswerError(GpupingError):
    """An answer that is none of an agent: another status, too long, encoded, cut off."""


async def resolve(host: str, port: int) -> list[str]:
    """Asks the system's resolver."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


async def checked_addresses(
    url: AgentUrl,
    networks: AskableNetworks,
    resolve: Resolve,
) -> list[str]:
    """Returns the addresses of an agent, all of which may be asked.

    Raises AddressRefusedError where one of them may not, and UnreachableError for a name without
    any.
    """
    addresses = [url.host]
    if not url.is_address:
        try:
            addresses = await resolve(url.host, url.port)
        except (OSError, UnicodeError) as error:
            raise UnreachableError(f"{url.host} cannot be resolved: {error}") from None
    if not addresses:
        raise UnreachableError(f"{url.host} has no address")
    for address in addresses:
        refusal = networks.refusal(address)
        if refusal is not None:
            raise AddressRefusedError(_about(url, refusal))
    return list(dict.fromkeys(addresses))


async def get(
    url: AgentUrl,
    path: str,
    networks: AskableNetworks,
    resolve: Resolve,
    trusted: ssl.SSLContext,
    seconds: float,
) -> bytes:
    """Returns what the agent answers to a GET with status 200.

    An agent at an https address must show a certificate of its name that `trusted` accepts. Making
    such a context reads every authority of the system, which takes 50 to 230 ms: it is made once.
    Raises AddressRefusedError, UnreachableError, also where it takes longer than `seconds` in all,
    and BadHttpAnswerError.
    """
    try:
        async with asyncio.timeout(seconds):
            addresses = await checked_addresses(url, networks, resolve)
            return await _get(url.at(path), addresses, trusted)
    except TimeoutError:
        raise UnreachableError(f"no whole answer within {seconds:g} s") from None


async def _get(url: str, addresses: list[str], trusted: ssl.SSLContext) -> bytes:
    pool = httpcore.AsyncConnectionPool(
        ssl_context=trusted, network_backend=_Pinned(addresses), retries=0
    )
    try:
        async with pool, pool.stream("GET", url, headers=_HEADERS) as response:
            _check_head(response)
            return await _read(response)
    except (httpcore.NetworkError, httpcore.TimeoutException) as error:
        raise UnreachableError(f"{type(error).__name__}: {error}") from None
    except (httpcore.ProtocolError, httpcore.UnsupportedProtocol) as error:
        raise BadHttpAnswerError(f"it is no HTTP: {error}") from None


def _check_head(response: httpcore.Response) -> None:
    if response.status != 200:
        raise BadHttpAnswerError(f"status {response.status}, expected 200")
    for name, value in response.headers:
        is_encoding = name.lower() == b"content-encoding"
        if is_encoding and value.strip().lower() not in {b"", b"identity"}:
            raise BadHttpAnswerError("it is compressed, which was not asked for")


async def _read(response: httpcore.Response) -> bytes:
    data = bytearray()
    async for part in response.aiter_stream():
        data += part
        if len(data) > LONGEST_ANSWER_BYTES:
            raise BadHttpAnswerError(f"it is longer than {LONGEST_ANSWER_BYTES} bytes")
    return bytes(data)


class _Pinned(httpcore.AsyncNetworkBackend):
    """Connects to addresses that were checked, whatever name the URL has.

    Host, SNI and the name in the certificate stay those of the URL.
    """

    def __init__(self, addresses: list[str]) -> None:
        self._addresses = addresses
        self._sockets = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,  # noqa: ARG002  # of the URL: what it leads to was looked up and checked
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connects to the first address that takes the connection."""
        for address in self._addresses[:-1]:
            try:
                return await self._sockets.connect_tcp(
                    address, port, timeout, local_address, socket_options
                )
            except httpcore.ConnectError:
                continue
        return await self._sockets.connect_tcp(
            self._addresses[-1], port, timeout, local_address, socket_options
        )


def _about(url: AgentUrl, refusal: str) -> str:
    if url.is_address:
        return refusal
    return f"{url.host} leads to {refusal}"
