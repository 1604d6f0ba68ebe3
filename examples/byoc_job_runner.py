#!/usr/bin/env python3
"""A Livepeer BYOC job runner that gives a host as much work as its uptime deserves.

Before each job it asks gpuping's `gpu-check`, and keeps to the bands of Livepeer's job rate:

    uptime of the last ping   99 % and more   95 to 99 %   90 to 95 %   below 90 %
    jobs                      full rate       half         a tenth      none

Copy it and put your own work where `run_job` is. It needs Python 3.11 and nothing else:

    python3 byoc_job_runner.py --agent agent-001 --jobs-per-minute 60

A gateway with tokens is asked with the token in GPUPING_TOKEN (role viewer).
"""

import argparse
import json
import os
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass

# The least uptime in percent, and the share of the full rate from there on.
BANDS = ((99.0, 1.0), (95.0, 0.5), (90.0, 0.1))
ASK_EVERY_SECONDS = 30.0
# An answer is used for so long when the gateway stops answering. A host that nobody can judge any
# more gets no new job.
ANSWER_LASTS_SECONDS = 300.0
ANSWER_TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True)
class GpuCheck:
    """The answer of `gpu-check`. The uptime is None until a ping was judged."""

    uptime_percent: float | None
    gpu_available: bool | None
    status: str


class CannotAskError(Exception):
    """The gateway did not answer, or refused; the text says why."""


def ask(gateway: str, agent_id: str, token: str | None) -> GpuCheck:
    """Asks the gateway about one host. Raises CannotAskError."""
    body = json.dumps({"agent_id": agent_id}).encode()
    request = urllib.request.Request(f"{gateway.rstrip('/')}/gpu-check", body)
    request.add_header("Content-Type", "application/json")
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_TIMEOUT_SECONDS) as response:
            answer = json.load(response)
        return GpuCheck(answer["uptime_percent"], answer["gpu_available"], answer["status"])
    except urllib.error.HTTPError as error:
        problem = error.read().decode(errors="replace")
        raise CannotAskError(f"{gateway} refused ({error.code}): {problem}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CannotAskError(f"{gateway} does not answer: {error}") from None


def share_of_full_rate(check: GpuCheck) -> float:
    """Returns the share of the full rate that the host gets, from 0 to 1.

    A host whose GPUs do not work now gets nothing, whatever its uptime was. One that was not judged
    yet begins at the full rate: its first ping came when it was enrolled.
    """
    if not check.gpu_available:
        return 0.0
    if check.uptime_percent is None:
        return 1.0
    for least_uptime, share in BANDS:
        if check.uptime_percent >= least_uptime:
            return share
    return 0.0


class Rate:
    """The share of the full rate that is in force, asked anew every ASK_EVERY_SECONDS."""

    def __init__(
        self,
        gateway: str,
        agent_id: str,
        token: str | None,
    ) -> None:
        self._gateway = gateway
        self._agent_id = agent_id
        self._token = token
        self._share = 0.0
        self._asked_at: float | None = None
        self._answered_at: float | None = None

    def share(self, now: float) -> float:
        """Returns the share at `now`, seconds of a clock that is never set back."""
        if self._asked_at is None or now - self._asked_at >= ASK_EVERY_SECONDS:
            self._asked_at = now
            self._ask(now)
        is_known = self._answered_at is not None and now - self._answered_at < ANSWER_LASTS_SECONDS
        return self._share if is_known else 0.0

    def _ask(self, now: float) -> None:
        try:
            check = ask(self._gateway, self._agent_id, self._token)
        except CannotAskError as error:
            print(error, file=sys.stderr, flush=True)
            return
        self._answered_at = now
        share = share_of_full_rate(check)
        if share != self._share:
            uptime = "not judged yet"
            if check.uptime_percent is not None:
                uptime = f"{check.uptime_percent:.2f} %"
            print(
                f"{self._agent_id} is {check.status}, uptime {uptime}: rate {share:.0%}", flush=True
            )
        self._share = share


def run_job(number: int) -> None:
    """Put your own work here."""
    print(f"job {number}", flush=True)


def main() -> int:
    """Runs jobs for ever, or until `--jobs` of them are done."""
    parser = argparse.ArgumentParser(
        description="Runs jobs at the rate that a host's uptime deserves, by gpuping's gpu-check."
    )
    parser.add_argument("--gateway", default="http://127.0.0.1:8000", help="address of gpuping")
    parser.add_argument("--agent", required=True, help="id of the host in gpuping")
    parser.add_argument("--jobs-per-minute", type=float, default=60.0, help="the full rate")
    parser.add_argument("--jobs", type=int, help="end after so many; without it: never")
    arguments = parser.parse_args()
    if arguments.jobs_per_minute <= 0:
        parser.error("--jobs-per-minute: expected a number above 0")
    rate = Rate(arguments.gateway, arguments.agent, os.environ.get("GPUPING_TOKEN"))
    number = 0
    while arguments.jobs is None or number < arguments.jobs:
        share = rate.share(time.monotonic())
        if share == 0.0:
            time.sleep(ASK_EVERY_SECONDS)
            continue
        number += 1
        run_job(number)
        time.sleep(60.0 / (arguments.jobs_per_minute * share))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
