"""The probe's child process: asks NVML and prints what it answers, one JSON line at a time.

It is a process of its own because an NVML call may never return, and a stuck thread would keep
Python from exiting. It dies with agentd. `agentd/nvml/worker_process.py` starts it in a bare
interpreter, with the standard library and pynvml alone.

Asked `{"ask": "check", "expected": [...], "last": [...], "skip": [...], "energy": [...]}` it
prints, in this order:

    {"opening": true}, {"opened": CODE_OR_NULL}      where NVML had to be opened
    {"found": [UUID, ...], "order": [UUID, ...],     the GPUs there are, and those it will ask
     "unopened": [{"index", "code", "pci"}, ...]}    those that have no UUID to read
    {"read": UUID, "readings": [...]}                for each
    {"xids": [[UUID, NUMBER], ...], "done": true}    the end; or {"failure": CODE} at any point

`{"ask": "details"}` is answered in the same way. Each line is written as soon as it is known, so
that the parent sees which GPU a hang belongs to.
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
    """Answers questions until the process `parent` has gone."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # The parent handles Ctrl-C, and then ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    nvml = Nvml()
    while os.getppid() == parent:
        line = sys.stdin.buffer.readline()
        if not line:
            return
        question = json.loads(line)
        try:
            _answer(nvml, question)
        except NvmlError as error:
            _print(failure=int(error.value))
            nvml.close()


def _print(**fields: Any) -> None:
    line = json.dumps(fields, separators=(",", ":")) + "\n"
    os.write(sys.stdout.fileno(), line.encode())


def _answer(nvml: Nvml, question: dict[str, Any]) -> None:
    if nvml.needs_opening():
        _print(opening=True)
        code = nvml.open()
        _print(opened=code)
        if code is not None:
            _print(failure=code)
            return
    skipped = set(question.get("skip", []))
    found, failed = nvml.enumerate(question.get("expected", []))
    order = _reading_order(found, question.get("last", []), skipped)
    _print(
        order=order,
        found=found,
        unopened=nvml.unopened,
    )
    for reading in failed:
        if reading["uuid"] not in skipped:
            _print(read=reading["uuid"], readings=[reading])
    if question["ask"] == "details":
        for uuid in order:
            _print(read=uuid, readings=[nvml.details(uuid)])
        _print(xids=[], done=True)
        return
    wants_energy = question.get("energy", [])
    for uuid in order:
        _print(read=uuid, readings=nvml.read(uuid, energy=uuid in wants_energy))
    _print(xids=list(nvml.xids()), done=True)


def _reading_order(
    found: list[str],
    last: list[str],
    skipped: set[str],
) -> list[str]:
    """The GPUs to read: those that hung before come last, so that they hold up no other."""
    order = []
    for uuid in found:
        if uuid not in last and uuid not in skipped:
            order.append(uuid)
    for uuid in last:
        if uuid in found and uuid not in skipped:
            order.append(uuid)
    return order
