"""`gpuping-agentd`: agentd in one file, for hosts without a Python that is new enough.

`make agentd-binary` makes the file. Without arguments it is the daemon, as `python -m agentd` is;
with arguments it is `gpuping agentd`. It is also the child process that asks the driver.
"""

import sys

from agentd.nvml.worker_process import STANDALONE_WORKER


def main() -> int:
    """Returns the exit code."""
    arguments = sys.argv[1:]
    if arguments[:1] == [STANDALONE_WORKER]:
        from agentd.nvml import worker

        worker.main(int(arguments[1]))
        return 0
    if not arguments:
        from agentd import process

        return process.main("gpuping")
    from gpuping import cli

    if arguments == ["--version"]:
        return cli.main(arguments)
    return cli.main(["agentd", *arguments])


if __name__ == "__main__":
    sys.exit(main())
