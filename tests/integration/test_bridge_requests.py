"""One question to an agent over HTTP, against real sockets: what is asked, and what is refused."""

import gzip
import socket
import ssl
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import httpcore
import pytest

from bus.identity.tls import certificates
from bus.identity.tls.files import TlsFiles
from bus.networks import AskableNetworks
from gateway.bridge import agent_url, http_asking
from gateway.bridge.bridge import UPTIME_PATH
from gateway.bridge.http_asking import (
    LONGEST_ANSWER_BYTES,
    AddressRefusedError,
    BadHttpAnswerError,
    UnreachableError,
    get,
)
from tests.old_http_agent import OldHttpAgent, Respond, send, send_json

HERE = AskableNetworks.parse("127.0.0.0/8", may_be_loopback=True)


@pytest.fixture
def agent() -> Iterator[OldHttpAgent]:
    with OldHttpAgent() as agent:
        yield agent


class Names:
    """A resolver of the test: each question gets the next of the answers, the last for ever."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append((host, port))
        if len(self.answers) > 1:
            return self.answers.pop(0)
        return self.answers[0]


async def ask(url: str, resolve=http_asking.resolve, seconds: float = 5.0, networks=HERE) -> bytes:
    trusted = httpcore.default_ssl_context()
    return await get(agent_url.parse(url), UPTIME_PATH, networks, resolve, trusted, seconds)


async def test_an_agent_is_asked_once_at_the_address_that_was_checked_under_its_name(agent):
    """Host is the name; no proxy of the environment, no compression, no cookies, no redirects."""
    names = Names(["127.0.0.1"])
    answer = await ask(f"http://gpu-host.example:{agent.port}/", names)
    assert b"uptime_percentage" in answer
    assert names.asked == [("gpu-host.example", agent.port)]
    (headers,) = agent.headers
    assert headers == {
        "Host": f"gpu-host.example:{agent.port}",
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "User-Agent": "gpuping-bridge",
        "Connection": "close",
    }


async def test_no_proxy_of_the_environment_is_asked(agent, monkeypatch):
    with OldHttpAgent() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.setenv("no_proxy", "")
        await ask(agent.url)
        assert (len(agent.questions), proxy.questions) == (1, [])


@pytest.fixture
def certificate(tmp_path: Path) -> TlsFiles:
    """Of gpu-host.example, signed by an authority of the operator's own."""
    files = TlsFiles(tmp_path)
    certificates.make(files, ["gpu-host.example"])
    return files


@pytest.fixture
def tls_agent(certificate: TlsFiles) -> Iterator[OldHttpAgent]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)
    with OldHttpAgent(tls=context) as agent:
        yield agent


async def test_an_https_agent_shows_a_certificate_of_its_name(tls_agent, certificate, monkeypatch):
    """The connection goes to the address that was checked; the certificate is of the name."""
    names = Names(["127.0.0.1"])
    url = f"https://gpu-host.example:{tls_agent.port}"
    with pytest.raises(UnreachableError, match="certificate verify failed"):
        await ask(url, names)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.authority))
    assert b"uptime_percentage" in await ask(url, names)
    assert b"uptime_percentage" in await ask(tls_agent.url)  # an address that it names, too
    with pytest.raises(UnreachableError, match=r"not valid for 'other-host\.example'"):
        await ask(f"https://other-host.example:{tls_agent.port}", names)
    assert len(tls_agent.questions) == 2


async def test_an_https_address_where_plain_http_is_spoken_is_unreachable(agent):
    with pytest.raises(UnreachableError, match="SSL"):
        await ask(f"https://127.0.0.1:{agent.port}")
    assert agent.questions == []


@pytest.mark.parametrize(
    "addresses",
    [
        ["169.254.169.254"],
        ["127.0.0.1", "169.254.169.254"],
        ["169.254.169.254", "127.0.0.1"],
        ["127.0.0.1", "::1"],
        ["::ffff:127.0.0.1"],
        ["fd00:ec2::254"],
        ["10.0.0.1"],
    ],
)
async def test_a_name_of_which_one_address_may_not_be_asked_is_not_asked(agent, addresses):
    with pytest.raises(AddressRefusedError, match="gpu-host leads to"):
        await ask(f"http://gpu-host:{agent.port}", Names(addresses))
    assert agent.questions == []


async def test_a_name_that_is_bound_again_leads_nowhere_else(agent):
    """The classic attack: the first answer is for the check, the second for the connection."""
    with OldHttpAgent("127.0.0.2") as other:
        names = Names(["127.0.0.1"], ["127.0.0.2"])
        other.stop()
        other.port = agent.port
        other.start()
        await ask(f"http://gpu-host:{agent.port}", names)
        assert (len(agent.questions), other.questions) == (1, [])
        assert len(names.asked) == 1


async def test_a_name_that_leads_elsewhere_at_the_next_ping_is_refused_then(agent):
    names = Names(["127.0.0.1"], ["169.254.169.254"])
    await ask(f"http://gpu-host:{agent.port}", names)
    with pytest.raises(AddressRefusedError):
        await ask(f"http://gpu-host:{agent.port}", names)
    assert len(agent.questions) == 1


async def test_the_next_address_is_tried_where_nobody_listens_at_the_first(agent):
    names = Names(["127.0.0.3", "127.0.0.1"])
    assert await ask(f"http://gpu-host:{agent.port}", names)


async def test_localhost_and_the_real_resolver(agent):
    nowhere = AskableNetworks.parse("10.0.0.0/8", may_be_loopback=False)
    with pytest.raises(AddressRefusedError, match="this machine itself"):
        await ask(f"http://localhost:{agent.port}", networks=nowhere)
    with pytest.raises(UnreachableError, match="cannot be resolved"):
        await ask("http://no-such-host.invalid:1", seconds=60.0)  # a resolver may take its time
    with pytest.raises(UnreachableError, match="has no address"):
        await ask("http://gpu-host:1", Names([]))


async def test_nobody_listens():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(UnreachableError):
            await ask(f"http://127.0.0.1:{port}")


def redirect(request: BaseHTTPRequestHandler) -> None:
    send(request, b"", 302, Location="http://169.254.169.254/latest/meta-data/")


def bomb(request: BaseHTTPRequestHandler) -> None:
    send(request, gzip.compress(b" " * 10_000_000), Content_Encoding="gzip")


def too_long(request: BaseHTTPRequestHandler) -> None:
    send(request, b" " * (LONGEST_ANSWER_BYTES + 1))


def endless(request: BaseHTTPRequestHandler) -> None:
    """No length: only the reader's limit ends it."""
    request.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
    try:
        while True:
            request.wfile.write(b" " * 65_536)
    except OSError:
        return


def endless_headers(request: BaseHTTPRequestHandler) -> None:
    request.wfile.write(b"HTTP/1.1 200 OK\r\n")
    try:
        while True:
            request.wfile.write(b"X-Padding: " + b"x" * 1000 + b"\r\n")
    except OSError:
        return


def no_http(request: BaseHTTPRequestHandler) -> None:
    request.wfile.write(b"SSH-2.0-OpenSSH_9.9\r\n")


def cut_off(request: BaseHTTPRequestHandler) -> None:
    request.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"uptime')


def not_found(request: BaseHTTPRequestHandler) -> None:
    send(request, b"{}", 404)


def broken(request: BaseHTTPRequestHandler) -> None:
    send_json(request, {})
    request.wfile.write(b"HTTP/1.1 200 OK\r\n\r\nsmuggled")


@pytest.mark.parametrize(
    "respond",
    [redirect, bomb, too_long, endless, endless_headers, no_http, cut_off, not_found],
    ids=lambda respond: respond.__name__,
)
async def test_an_answer_that_is_none_is_refused(agent: OldHttpAgent, respond: Respond):
    agent.respond = respond
    with pytest.raises(BadHttpAnswerError):
        await ask(agent.url)
    assert len(agent.questions) == 1


async def test_what_follows_the_answer_is_not_read(agent):
    agent.respond = broken
    assert await ask(agent.url) == b"{}"


def drip(request: BaseHTTPRequestHandler) -> None:
    """A byte now and then keeps every time-out between two bytes from passing."""
    request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    try:
        for _ in range(100):
            request.wfile.write(b" ")
            request.wfile.flush()
            time.sleep(0.05)
    except OSError:
        return


def silence(_request: BaseHTTPRequestHandler) -> None:
    time.sleep(1.0)


@pytest.mark.parametrize("respond", [drip, silence], ids=lambda respond: respond.__name__)
async def test_an_answer_that_drips_is_cut_off_when_the_time_is_over(agent, respond):
    agent.respond = respond
    with pytest.raises(UnreachableError, match=r"within 0\.3 s"):
        await ask(agent.url, seconds=0.3)
