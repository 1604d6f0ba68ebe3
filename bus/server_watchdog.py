"""Ends a nats-server that hangs, so that its supervisor starts it again.

    python -m bus.server_watchdog nats-server -c /etc/gpuping/nats.conf

Supervisors start again what has ended. A server that hangs does not end; neither does one whose
disk was full for a moment, which refuses every write from then on. So this program leaves a child
that asks the server's own health check, and becomes the server itself: a supervisor's signals reach
the server, and its exit code is the server's.

Nothing is done before the server has been healthy once, because a large store takes long to read.
After that it is ended when it has not answered LOOKS times in a row, or has said as often that it
cannot write although there is room. So is one that was started on a full disk. A server that is
unhealthy for another reason, such as a cluster without a leader, is left alone. Looks are counted
and time is not: where everything was frozen (a paused container, a suspended machine), nothing has
hung.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

Health = Literal["healthy", "limited", "mute", "cannot write", "unhealthy"]

# As in deploy/nats.conf and deploy/cluster/nats.conf, which answer health checks there only.
HOST = "127.0.0.1"
MONITOR_PORT = 8222
STORE = Path("/data")
LOOK_SECONDS = 10.0
ANSWER_SECONDS = 8.0
LOOKS = 6
STOP_SECONDS = 10.0
ROOM_BYTES = 64 * 2**20
SHARE_OF_DISK = 0.75  # nats-server's own
MOST_OVER_LIMIT = 1.02
ENOUGH_TO_START = 1.1
# What a server says that stays as it is until it is started again.
LASTING_ERRORS = (b"write error", b"JetStream not enabled")
# A program in Go that gets SIGQUIT writes down what each of its threads is at, and ends.
SIGNALS = {
    "mute": signal.SIGQUIT,
    "cannot write": signal.SIGTERM,
    "limited": signal.SIGTERM,
}
REASONS = {
    "limited": "it was started on a full disk and refuses writes, although there is room now",
    "mute": "it does not answer its health check",
    "cannot write": "it cannot write, although there is room",
}


class Judge:
    """Decides from one look after the other whether the server must end."""

    def __init__(self, looks: int = LOOKS) -> None:
        self.was_healthy = False
        self._looks = looks
        self._last: Health = "unhealthy"
        self._in_a_row = 0

    def must_end(self, health: Health) -> bool:
        """Returns whether the server must end, after one look more."""
        if health in {"healthy", "limited"}:
            self.was_healthy = True  # it has read its store
        if health == self._last:
            self._in_a_row += 1
        else:
            self._last = health
            self._in_a_row = 1
        has_failed = self.was_healthy and health in SIGNALS
        return has_failed and self._in_a_row >= self._looks


def look(port: int, store: Path, seconds: float) -> Health:
    """Asks the server's health check, which has so long to answer."""
    try:
        answer = ask(port, "/healthz", seconds)
    except OSError:
        return "mute"
    status = answer.partition(b"\r\n")[0].split(b" ")
    if status[1:2] != [b"200"]:
        return unhealthy(answer, store)
    try:
        streams = json.loads(ask(port, "/jsz", seconds).partition(b"\r\n\r\n")[2])
        used, limit = streams["storage"], streams["config"]["max_storage"]
    except (OSError, ValueError, KeyError, TypeError):
        return "healthy"  # it has no JetStream, or is about to be mute
    if is_limited_by_mistake(used, limit, store):
        return "limited"
    return "healthy"


def ask(port: int, path: str, seconds: float) -> bytes:
    """The answer of this machine's own HTTP server. Raises OSError without one in time."""
    with socket.create_connection((HOST, port), seconds) as connection:
        connection.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        answer = b""
        while received := connection.recv(4096):
            answer += received
        return answer


def is_limited_by_mistake(used: int, limit: int, store: Path) -> bool:
    """Whether the server was started on a full disk, which has room now.

    Without `max_file_store` it allows itself three quarters of what its streams use and of what is
    free when it starts. On a full disk that is less than they use: it is healthy and refuses every
    write, until it is started anew. A limit that somebody set is never passed by so much.
    """
    if limit <= 0 or used <= limit * MOST_OVER_LIMIT:
        return False
    try:
        free = shutil.disk_usage(store).free
    except OSError:
        return False
    limit_of_new_start = (free + used) * SHARE_OF_DISK
    return limit_of_new_start > used * ENOUGH_TO_START


def unhealthy(answer: bytes, store: Path) -> Health:
    """What follows from an answer of the health check that is not a good one."""
    is_lasting = any(error in answer for error in LASTING_ERRORS)
    if is_lasting and _has_room(store):
        return "cannot write"
    return "unhealthy"


def _has_room(store: Path) -> bool:
    """Where the disk is still full, a start anew helps nobody."""
    try:
        return shutil.disk_usage(store).free > ROOM_BYTES
    except OSError:
        return True


class Watch(NamedTuple):
    """How a program is watched by its own child."""

    name: str
    look: Callable[[], Health]
    looks: int
    look_seconds: float
    stop_seconds: float

    def run(self, watched: int) -> None:
        """Looks until the program, which is our parent, has ended or had to be ended."""
        judge = Judge(self.looks)
        while os.getppid() == watched:
            began = time.monotonic()
            health = self.look()
            was_healthy = judge.was_healthy
            if judge.must_end(health):
                self._end(watched, health)
                return
            if judge.was_healthy and not was_healthy:
                _say(f"{self.name} (pid {watched}) is healthy, and is watched from now on")
            time.sleep(max(0.0, self.look_seconds - (time.monotonic() - began)))

    def _end(self, watched: int, health: Health) -> None:
        why = f"{REASONS[health]} ({self.looks} looks in a row)"
        _say(f"{self.name} (pid {watched}) is ended: {why}")
        with suppress(ProcessLookupError):
            os.kill(watched, SIGNALS[health])
            ends_at = time.monotonic() + self.stop_seconds
            while os.getppid() == watched:
                if time.monotonic() > ends_at:
                    os.kill(watched, signal.SIGKILL)
                    return
                time.sleep(0.1)


def become(command: list[str], watch: Watch) -> None:
    """Becomes the program that is watched, and leaves a child that watches it."""
    watched = os.getpid()
    if os.fork() == 0:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: it is for the program
        watch.run(watched)
        return
    try:
        os.execvp(command[0], command)  # noqa: S606  # the words of the operator's own unit
    except OSError as error:
        sys.exit(f"gpuping: {command[0]}: {error.strerror}")


def _say(text: str) -> None:
    with suppress(OSError):  # nobody reads what we say any more
        os.write(sys.stderr.fileno(), f"gpuping: {text}\n".encode())


def main() -> None:
    """Reads the options and becomes the server."""
    parser = argparse.ArgumentParser(prog="python -m bus.server_watchdog")
    parser.add_argument(
        "--monitor-port", type=int, default=MONITOR_PORT, help="`http:` of the server"
    )
    parser.add_argument("--store", type=Path, default=STORE, help="where it writes")
    parser.add_argument("--look-seconds", type=float, default=LOOK_SECONDS, help="between looks")
    parser.add_argument("--answer-seconds", type=float, default=ANSWER_SECONDS, help="of a look")
    parser.add_argument("--stop-seconds", type=float, default=STOP_SECONDS, help="until SIGKILL")
    parser.add_argument("server", nargs=argparse.REMAINDER, help="nats-server and its options")
    asked = parser.parse_args()
    if not asked.server:
        parser.error("nats-server and its options are missing")
    become(
        asked.server,
        Watch(
            name="nats-server",
            look=lambda: look(asked.monitor_port, asked.store, asked.answer_seconds),
            looks=LOOKS,
            look_seconds=asked.look_seconds,
            stop_seconds=asked.stop_seconds,
        ),
    )


if __name__ == "__main__":
    main()
