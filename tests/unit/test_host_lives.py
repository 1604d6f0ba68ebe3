"""Whole lives of hosts: every window adds up exactly, and what is admitted is what truly happened.

Every honest report is admitted, whatever happens to the clocks of the host, of the schedulers and
of the server. The error against the truth is at most one check interval a transition, plus both
answers' times, plus 2 s where two schedulers alternate.
"""

import shutil
import tempfile
from pathlib import Path

import pytest
from host_lives import HOUR, Findings, Kind, LifeRun

from bus.contract.remarks import GPUS_CONTRADICT_HOST

_SHM = Path("/dev/shm")  # noqa: S108  # mkdtemp makes names there that nobody can guess
MEMORY = _SHM if _SHM.is_dir() else None  # fsync costs nothing there; the code is the same
MINUTE = 60_000
QUARTER = 15 * MINUTE
TWINS = (30_000, 30_000)
SLOW = (60_000, 240_000)  # longer than the step, too

KINDS = (
    Kind("fast answers"),
    Kind("answers up to the time-out", slow=1.0),
    Kind("slow, looks every 0.1 s", (1_500, 1_500), check=100, slow=1.0),
    Kind("half slow, always on", slow=0.5, troubles=()),
    Kind("lost and late replies", lost=0.4, slow=0.5),
    Kind("kills", troubles=("kill", "stop")),
    Kind("reboots with a wrong clock", troubles=("reboot",)),
    Kind("suspends", troubles=("suspend",)),
    Kind("wiped disks", troubles=("wipe",)),
    Kind("15 minutes, looks every 5 s", (QUARTER, QUARTER), windows=4),
    Kind("15 minutes, looks every minute", (QUARTER, QUARTER), check=MINUTE),
    Kind("15 minutes to 24 hours", (QUARTER, 24 * HOUR), check=30 * MINUTE),
    Kind("two schedulers, 2 s apart", TWINS, schedulers=2, slow=0.3),
    Kind("the same, looks every 0.1 s", (2_000, 2_000), check=100, schedulers=2, slow=0.3),
    Kind("our clock 3 h ahead", step=3 * HOUR),
    Kind("our clock 3 h behind", step=-3 * HOUR),
    Kind("our clock 90 s behind", step=-90_000),
    Kind("our clock and the server's 3 h ahead", step=3 * HOUR, server_step=3 * HOUR),
    Kind("our clock and the server's 3 h behind", step=-3 * HOUR, server_step=-3 * HOUR),
    Kind("the server's clock 3 h ahead", server_step=3 * HOUR),
    Kind("the server's clock 3 h behind", server_step=-3 * HOUR),
    Kind("the server's clock 1 h ahead, twins", TWINS, schedulers=2, server_step=HOUR),
    Kind("the server's clock 1 h behind, twins", TWINS, schedulers=2, server_step=-HOUR),
    Kind("the server's clock 100 s behind, twins", SLOW, schedulers=2, server_step=-100_000),
    Kind("our outages", outage=True),
    Kind("maintenance", booked=True),
    Kind("maintenance, slow answers", booked=True, slow=1.0),
    Kind("a GPU replaced", replaced=True, slow=0.3),
    Kind("a GPU forgotten and expected again", toggled=True, slow=0.3),
    Kind("the same, lost replies, 15 minutes", (QUARTER, QUARTER), toggled=True, lost=0.3),
    Kind("1 s windows", (1_000, 1_000), windows=40),
    Kind("1 s windows, slow, twins", (1_000, 1_000), 100, 0.5, schedulers=2, windows=40),
    Kind("10 s windows, slow", (10_000, 10_000), slow=1.0, windows=30),
)
# Of each kind: 2,077 lives in all, and 20,677 in `make soak`, none of them twice.
LIVES = 67
MANY_LIVES = 667


def live(kind: Kind, seeds: range) -> Findings:
    findings = Findings()
    for seed in seeds:
        folder = Path(tempfile.mkdtemp(dir=MEMORY, prefix="gpuping-life-"))
        try:
            LifeRun(kind, f"{kind.name} {seed}", folder, findings).live()
        finally:
            shutil.rmtree(folder)
    return findings


def check(findings: Findings, lives: int) -> None:
    assert findings.lives == lives
    assert findings.windows > lives
    assert findings.refused == 0, findings.refused_where
    assert findings.worst <= 0, findings.worst_where
    assert GPUS_CONTRADICT_HOST not in findings.remarks  # nobody lied


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_lives_are_accounted_exactly_and_truly(kind: Kind):
    check(live(kind, range(LIVES)), LIVES)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_very_many_lives_are_accounted_exactly_and_truly(kind: Kind):
    check(live(kind, range(LIVES, LIVES + MANY_LIVES)), MANY_LIVES)
