"""`python -m gpuping`, for where the script is not on the PATH."""

import sys

from gpuping.cli import main

sys.exit(main())
