"""The probe's child process: asks NVML and prints what it says, one JSON line at a time.

A process of its own because an NVML call may never return, and a stuck thread would keep Python from exiting.
It dies with agentd. Started by `agentd/nvml/worker_process.py` in a bare interpreter: standard library and pynvml alone.

Asked `{"ask": "check", "expected": [...], "last": [...], "skip": [...], "energy": [...]}` it prints, in this order:

    {"opening": true}, {"opened": CODE_OR_NULL}          where NVML had to be opened
    {"found": [UUID, ...], "order": [UUID, ...]}         the GPUs there are, and those it will ask, in this order
    {"read": UUID, "readings": [...]}                    for each
    {"xids": [[UUID, NUMBER], ...], "done": true}        the end; or {"failure": CODE} at any point

`{"ask": "details"}` is answered alike. Each line is written as soon as it is known, so that the parent sees which
GPU a hang belongs to.
"""

import ctypes
import json
import os
import signal
import sys
from typing import Any

from agentd.nvml.library import Nvml, NvmlError

_PR_SET_PDEATHSIG = 1


def main(parent: int) -> None:
    """Answers questions until the parent goes."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C is the parent's to handle, which then ends us
    nvml = Nvml()
    while os.getppid() == parent and (line := sys.stdin.buffer.readline()):
        question = json.loads(line)
        try:
            _answer(nvml, question)
        except NvmlError as error:
            _say(failure=int(error.value))
            nvml.close()


def _say(**fields: Any) -> None:
    os.write(sys.stdout.fileno(), json.dumps(fields, separators=(",", ":")).encode() + b"\n")


def _answer(nvml: Nvml, question: dict[str, Any]) -> None:
    if nvml.needs_opening():
        _say(opening=True)
        code = nvml.open()
        _say(opened=code)
        if code is not None:
            return _say(failure=code)
    found, failed = nvml.enumerate(question.get("expected", []))
    last, skip = question.get("last", []), set(question.get("skip", []))
    order = [uuid for uuid in found if uuid not in last] + [uuid for uuid in last if uuid in found]
    order = [uuid for uuid in order if uuid not in skip]
    _say(order=order, found=found)
    for reading in failed:
        if reading["uuid"] not in skip:
            _say(read=reading["uuid"], readings=[reading])
    for uuid in order:
        if question["ask"] == "details":
            _say(read=uuid, readings=[nvml.details(uuid)])
        else:
            _say(read=uuid, readings=nvml.read(uuid, energy=uuid in question.get("energy", [])))
    return _say(xids=list(nvml.xids()) if question["ask"] == "check" else [], done=True)
