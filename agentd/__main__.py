"""`python -m agentd`: the daemon without the command line's other verbs and their imports."""

import sys

from agentd import process

if __name__ == "__main__":
    sys.exit(process.main())
