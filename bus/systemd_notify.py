"""Notifies systemd that a service is ready, alive and stopping (sd_notify).

Does nothing where nobody listens. Alive means that the event loop runs, and of agentd that its
check loop does: the watchdog is there for a service that only looks alive.
"""

import asyncio
import os
import socket
from collections.abc import Callable, Mapping

import structlog

log = structlog.get_logger("bus.systemd_notify")


class Notifier:
    """Writes to NOTIFY_SOCKET. `watchdog_seconds` is None where systemd sets no watchdog."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        self.watchdog_seconds = _watchdog_seconds(environ)

    def ready(self) -> None:
        """The service does its work from now on."""
        self._notify("READY=1")

    def stopping(self) -> None:
        """The process is about to end."""
        self._notify("STOPPING=1")

    async def watch(self, is_alive: Callable[[], bool]) -> None:
        """Resets the watchdog twice a period while `is_alive` returns true.

        Returns at once without a watchdog.
        """
        while self.watchdog_seconds is not None:
            if is_alive():
                self._notify("WATCHDOG=1")
            await asyncio.sleep(self.watchdog_seconds / 2)

    def _notify(self, message: str) -> None:
        if not self._address:
            return
        address = self._address
        if address.startswith("@"):
            address = "\0" + address[1:]  # a socket in Linux's abstract namespace
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
                out.sendto(message.encode(), address)
        except OSError as error:
            log.warning(
                "systemd_notify_failed",
                message=message,
                detail=str(error),
            )


def _watchdog_seconds(environ: Mapping[str, str]) -> float | None:
    microseconds = environ.get("WATCHDOG_USEC", "")
    if not environ.get("NOTIFY_SOCKET") or not microseconds.isdigit():
        return None
    if int(microseconds) == 0:
        return None
    return int(microseconds) / 1e6
