"""agentd as a process: runs until SIGTERM or SIGINT, and stops within 5 s whatever hangs."""

import signal
from contextlib import AbstractAsyncContextManager, nullcontext

from agentd import http, service
from agentd.messaging import enrolment
from agentd.service import Agent
from bus import logs, runner, standard_streams
from bus.background import background
from bus.errors import SettingsError
from bus.private_files import hide_new_files
from bus.runner import Lifecycle, complain
from bus.settings import Settings, load
from bus.systemd_notify import Notifier

STOP_SECONDS = 4.0
# After this the kernel ends the process: a disk or a driver that never returns may block the event
# loop itself.
LAST_RESORT_SECONDS = 5


def main(program: str = "agentd") -> int:
    """All of `python -m agentd`: settings from the environment, and an exit code.

    `program` stands before what it says on standard error. 0 after a signal, 1 for a failure, 2 for
    a setting that cannot be used.
    """
    standard_streams.prepare_service()
    try:
        settings = load()
    except SettingsError as error:
        return runner.report(error, program)
    logs.setup(settings)
    return run(enrolment.with_enrolment(settings), program)


def run(settings: Settings, program: str = "agentd") -> int:
    """An agentd on this host, with the HTTP endpoints in agent mode (AGENT_MODE).

    Returns the exit code.

    `program` stands before what it says on standard error.
    """
    standard_streams.prepare_service()
    hide_new_files()
    notifier = Notifier()

    def on_signal() -> None:
        signal.alarm(LAST_RESORT_SECONDS)
        notifier.stopping()

    async def main(lifecycle: Lifecycle) -> None:
        try:
            async with (
                service.running(settings, serve_http=settings.AGENT_MODE) as agent,
                background() as start,
                _metrics(agent, settings),
            ):
                notifier.ready()
                start(notifier.watch(agent.check_loop.is_alive))
                if agent.http_port is not None:
                    address = f"{settings.AGENT_HTTP_HOST}:{agent.http_port}"
                    complain(f"http://{address}/agent/health", program)
                start(_say_when_registered(agent, settings, program))
                await lifecycle.until_stopped()
        finally:
            if not lifecycle.stopping.is_set():  # a crash
                signal.alarm(LAST_RESORT_SECONDS)

    # This is the plain event loop. uvloop would cost a GPU host memory and gain nothing at this
    # rate.
    return runner.run(
        main,
        program=program,
        stop_seconds=STOP_SECONDS,
        on_signal=on_signal,
        end_on_second_signal=False,  # the stop is short, and saves what the ledger has not saved
        loop_factory=lambda: None,
    )


def _metrics(agent: Agent, settings: Settings) -> AbstractAsyncContextManager[None]:
    """`/metrics`; in agent mode the other endpoints come with it, and `service` serves them."""
    if settings.AGENT_MODE:
        return nullcontext()
    return http.serving_metrics(agent.responder, settings)


async def _say_when_registered(agent: Agent, settings: Settings, program: str) -> None:
    """Says that the agent is on the bus once the registry has answered, and not before."""
    await agent.registered.wait()
    complain(f"agent {agent.agent_id} is on the bus at {settings.shown_nats_url}", program)
