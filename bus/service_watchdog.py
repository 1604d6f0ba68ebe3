"""Ends a service of gpuping that hangs as a whole, so that its container is started again.

    python -m bus.service_watchdog --port 9321 gpuping scheduler

A service whose event loop hangs ends itself (`bus.watchdog`). One whose interpreter hangs, or that
was stopped (SIGSTOP), cannot: that thread stands still with it. Under systemd the unit's watchdog
ends it; a container engine calls it unhealthy and does nothing. So this program leaves a child that
asks the service's own HTTP port, and becomes the service itself, as `bus.server_watchdog` does for
nats-server and by the same rules. Any answer is a sign of life.
"""

import argparse

from bus.server_watchdog import (
    ANSWER_SECONDS,
    LOOK_SECONDS,
    STOP_SECONDS,
    Health,
    Watch,
    ask,
    become,
)

# After HUNG_SECONDS of `bus.watchdog`, which also writes down where the event loop hangs.
LOOKS = 9


def look(port: int, seconds: float) -> Health:
    """Asks whether the service lives. It has so long to answer."""
    try:
        answer = ask(port, "/healthz", seconds)
    except OSError:
        return "mute"
    return "healthy" if answer else "mute"


def main() -> None:
    """Reads the options and becomes the service."""
    parser = argparse.ArgumentParser(prog="python -m bus.service_watchdog")
    parser.add_argument("--port", type=int, required=True, help="where it answers /healthz")
    parser.add_argument("--look-seconds", type=float, default=LOOK_SECONDS, help="between looks")
    parser.add_argument("--answer-seconds", type=float, default=ANSWER_SECONDS, help="of a look")
    parser.add_argument("--stop-seconds", type=float, default=STOP_SECONDS, help="until SIGKILL")
    parser.add_argument("service", nargs=argparse.REMAINDER, help="the service and its options")
    asked = parser.parse_args()
    if not asked.service:
        parser.error("the service and its options are missing")
    become(
        asked.service,
        Watch(
            name=" ".join(asked.service[:2]),
            look=lambda: look(asked.port, asked.answer_seconds),
            looks=LOOKS,
            look_seconds=asked.look_seconds,
            stop_seconds=asked.stop_seconds,
        ),
    )


if __name__ == "__main__":
    main()
