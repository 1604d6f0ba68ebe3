"""`python -m storage`: one storage, for benches and tests that kill it.

`gpuping storage` is for people.
"""

import sys

from bus.runner import run_service
from storage.service import running

if __name__ == "__main__":
    sys.exit(run_service("storage", running))
