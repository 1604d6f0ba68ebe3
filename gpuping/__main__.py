"""`python -m gpuping`, for machines on which the script `gpuping` is not on the PATH."""

import sys

from gpuping.cli import main

sys.exit(main())
