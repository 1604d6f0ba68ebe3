"""`python -m gateway`: one gateway, for benches.

`gpuping gateway` is for people.
"""

import sys

from bus.runner import run_service
from gateway.service import running

if __name__ == "__main__":
    sys.exit(run_service("gateway", running))
