"""`python -m scheduler`: one scheduler in a process of its own, for benches and tests that kill it.

Users start one by `gpuping scheduler`.
"""

import sys

from bus.runner import run_service
from scheduler.service import running

if __name__ == "__main__":
    sys.exit(run_service("scheduler", running))
