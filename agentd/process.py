"""agentd as a process of its own: runs until SIGTERM or SIGINT, and stops within 5 s whatever hangs."""

import asyncio
import contextlib
import os
import signal

import structlog

from agentd import service
from agentd.host.systemd_notify import Notifier
from bus.settings import Settings

log = structlog.get_logger("agentd.process")

STOP_SECONDS = 4.0
LAST_RESORT_SECONDS = (
    5  # then the kernel ends us: a disk that never returns may hold the loop itself
)


async def run(settings: Settings) -> None:
    """An agentd on this host. In agent mode (AGENT_MODE) it has the HTTP endpoints too."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    notifier = Notifier()
    serving = asyncio.create_task(_serve(settings, notifier))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    signal.alarm(LAST_RESORT_SECONDS)
    notifier.stopping()
    serving.cancel()
    done, _ = await asyncio.wait({serving}, timeout=STOP_SECONDS)
    if not done:
        _leave_by_force()
    with contextlib.suppress(asyncio.CancelledError):
        serving.result()


async def _serve(settings: Settings, notifier: Notifier) -> None:
    async with service.running(settings, serve_http=settings.AGENT_MODE) as agent:
        notifier.ready()
        await notifier.watch(agent.daemon.is_turning)
        await asyncio.Event().wait()


def _leave_by_force() -> None:
    """A driver or a disk that never returns must not keep the host from shutting down."""
    log.error("stopped_by_force", after_seconds=STOP_SECONDS)
    os._exit(1)
