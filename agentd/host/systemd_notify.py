"""Tells systemd that agentd is ready, alive and stopping (sd_notify); does nothing where nobody listens.

Alive means that the check loop turns: a daemon that only looks alive is what the watchdog is for.
"""

import asyncio
import os
import socket
from collections.abc import Callable, Mapping

import structlog

log = structlog.get_logger("agentd.host.systemd_notify")


class Notifier:
    """Speaks to NOTIFY_SOCKET. `watchdog_seconds` is None where systemd watches nothing."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        microseconds = environ.get("WATCHDOG_USEC", "")
        watched = bool(self._address) and microseconds.isdigit() and int(microseconds) > 0
        self.watchdog_seconds = int(microseconds) / 1e6 if watched else None

    def ready(self) -> None:
        """The ledger runs."""
        self._say("READY=1")

    def stopping(self) -> None:
        """On the way out."""
        self._say("STOPPING=1")

    async def watch(self, alive: Callable[[], bool]) -> None:
        """Pats the watchdog twice a period for as long as `alive` says so; returns at once where there is none."""
        while self.watchdog_seconds is not None:
            if alive():
                self._say("WATCHDOG=1")
            await asyncio.sleep(self.watchdog_seconds / 2)

    def _say(self, message: str) -> None:
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
                out.sendto(message.encode(), address)
        except OSError as error:
            log.warning("systemd_not_told", message=message, detail=str(error))
