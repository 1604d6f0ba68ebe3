"""An agent of the guide's own kind, on real sockets: three endpoints over HTTP and no bus.

It counts the uptime of its GPU since it was asked last, in memory, and begins anew with each
question. A test can make it misbehave: `respond` then writes the answer to the uptime question.
"""

import json
import ssl
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from tests.ports import free_port

Respond = Callable[[BaseHTTPRequestHandler], None]


class OldHttpAgent:
    """Listens from `start` to `stop`, on one port; `share_up` of the time its GPU is up."""

    def __init__(
        self,
        host: str = "127.0.0.1",
        *,
        tells_length: bool = True,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.host = host
        self.tls = tls  # with its certificate and key; None for plain HTTP
        self.port = free_port()
        self.share_up = 1.0
        self.has_gpu = True
        self.tells_length = tells_length
        self.respond: Respond | None = None
        self.questions: list[str] = []  # the paths that were asked, oldest first
        self.headers: list[dict[str, str]] = []  # of each question
        self._asked_at = time.monotonic()
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        scheme = "http" if self.tls is None else "https"
        return f"{scheme}://{self.host}:{self.port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        agent = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                agent._answer(self)

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        self._server = ThreadingHTTPServer((self.host, self.port), Handler)
        self._server.daemon_threads = True
        if self.tls is not None:
            self._server.socket = self.tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def uptime_questions(self) -> int:
        return self.questions.count("/agent/uptime-since-last-ping")

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        self.questions.append(request.path)
        self.headers.append(dict(request.headers))
        if self.respond is not None:
            self.respond(request)
            return
        match request.path:
            case "/agent/uptime-since-last-ping":
                send_json(request, self._uptime())
            case "/agent/gpu-status":
                send_json(request, {"gpu_available": self.has_gpu})
            case "/agent/health":
                send_json(request, {"status": "healthy"})
            case _:
                request.send_error(404)

    def _uptime(self) -> dict[str, Any]:
        now = time.monotonic()
        answer: dict[str, Any] = {
            "uptime_percentage": 100.0 * self.share_up,
            "gpu_available": self.has_gpu,
        }
        if self.tells_length:
            answer["seconds_since_last_ping"] = now - self._asked_at
        self._asked_at = now
        return answer


def send_json(request: BaseHTTPRequestHandler, answer: Any, **headers: str) -> None:
    send(request, json.dumps(answer).encode(), **headers)


def send(request: BaseHTTPRequestHandler, data: bytes, status: int = 200, **headers: str) -> None:
    request.send_response(status)
    for name, value in headers.items():
        request.send_header(name.replace("_", "-"), value)
    request.send_header("Content-Length", str(len(data)))
    request.end_headers()
    request.wfile.write(data)
