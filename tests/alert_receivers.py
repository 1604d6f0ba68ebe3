"""Receivers of alerts: a real HTTP server and a real SMTP server, which remember what they got."""

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email import message_from_bytes
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from aiosmtpd.controller import Controller

from tests.ports import free_port

SECRET = "0123456789abcdef0123456789abcdef"


class Received(NamedTuple):
    """One request that carried a right signature."""

    id: str
    body: dict[str, Any]


class Hook:
    """An HTTP receiver. It refuses with `refuse_with` while that is set."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.refused = 0
        self.refuse_with: int | None = None
        self.badly_signed: list[dict[str, str]] = []
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                self.send_response(hook._take(dict(self.headers.items()), body))
                self.send_header("Location", "http://127.0.0.1:9/")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """A test is quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/alerts"

    def toml(self, name: str = "hook") -> str:
        """Its entry in an alerts file."""
        return f'[[target]]\nname = "{name}"\nwebhook = "{self.url}"\nsecret = "{SECRET}"\n'

    @property
    def changes(self) -> list[dict[str, Any]]:
        """Every change of every message, in the order of arrival."""
        return [change for received in self.received for change in received.body["changes"]]

    def until(self, holds: Callable[[], bool], seconds: float = 30.0) -> None:
        """Waits for another process or thread; only looking tells."""
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, [one.body["title"] for one in self.received]
            time.sleep(0.02)

    def _take(self, headers: dict[str, str], body: bytes) -> int:
        headers = {name.lower(): value for name, value in headers.items()}
        if not is_signed(headers, body):
            self.badly_signed.append(headers)
            return 401
        if self.refuse_with is not None:
            self.refused += 1
            return self.refuse_with
        self.received.append(Received(headers["webhook-id"], json.loads(body)))
        return 204


def is_signed(headers: dict[str, str], body: bytes) -> bool:
    """The receiver's half of the signature, from docs/alerts.md and from nothing else."""
    if abs(time.time() - int(headers["webhook-timestamp"])) > 300:
        return False
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    digest = hmac.new(SECRET.encode(), signed, hashlib.sha256).digest()
    return headers["webhook-signature"] == f"v1,{base64.b64encode(digest).decode()}"


@contextmanager
def listening_hook() -> Iterator[Hook]:
    """An HTTP receiver for the length of a block."""
    hook = Hook()
    thread = threading.Thread(target=hook._server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hook
    finally:
        hook._server.shutdown()
        hook._server.server_close()
        thread.join()


class Mailbox:
    """What an SMTP server was given."""

    def __init__(self) -> None:
        self.mails: list[Message] = []
        self.port = 0

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        self.mails.append(message_from_bytes(envelope.content))
        return "250 OK"

    def toml(self, name: str = "mail") -> str:
        """Its entry in an alerts file."""
        url = f"mailto://127.0.0.1:{self.port}?from=gpuping@example.org&to=ops@example.org"
        return f'[[target]]\nname = "{name}"\nurl = "{url}"\n'


@contextmanager
def listening_mailbox() -> Iterator[Mailbox]:
    """An SMTP receiver for the length of a block."""
    mailbox = Mailbox()
    controller = Controller(mailbox, hostname="127.0.0.1", port=free_port())
    mailbox.port = controller.port
    controller.start()
    try:
        yield mailbox
    finally:
        controller.stop()
