"""Ports for servers that a test starts, chosen so that nothing else takes them meanwhile.

A port that the kernel chooses is free only until somebody else is given it: for a connection, or
for another test's server. And whoever keeps trying to reach a dead server at such a port may at
last reach himself. So these ports lie below those that the kernel hands out, each worker of
pytest-xdist has a range of its own, and no port is given twice before the range is used up.
"""

import itertools
import os
import socket

_FIRST = 12_000
_WORKERS = 8
_PER_WORKER = 2_500  # the last range ends at 32,000; the kernel begins at 32,768


def free_ports(count: int) -> list[int]:
    """Ports on which nobody listens."""
    return [free_port() for _ in range(count)]


def free_port() -> int:
    """A port on which nobody listens."""
    for _ in range(_PER_WORKER):
        port = next(_candidates)
        if _is_free(port):
            return port
    raise AssertionError("no port is free")


def _own_range() -> range:
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    first = _FIRST + int(worker) % _WORKERS * _PER_WORKER
    return range(first, first + _PER_WORKER)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


# Two runs of the suite on one machine begin at different places.
_candidates = itertools.islice(itertools.cycle(_own_range()), os.getpid() % _PER_WORKER, None)
