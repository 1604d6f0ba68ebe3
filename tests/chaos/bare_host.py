"""A host of which only the connection matters: it answers the server's pings and does nothing else.

It knows just enough of the NATS protocol, because dozens of them start at once on a small machine.
It ends when the server ends the connection; its supervisor starts it again, as an agent comes back.
"""

import base64
import json
import re
import socket
import ssl
import sys
import time
from pathlib import Path

import nkeys


def main() -> None:
    """Arguments: host, port, the authority's certificate, the credentials, the name, a file.

    The file holds when the server took the connection: CLOCK_BOOTTIME, seconds.
    """
    host, port, authority, creds, name, taken = sys.argv[1:]
    token, seed = re.findall(r"-+BEGIN [^-]+-+\n(\S+)\n", Path(creds).read_text())
    plain = socket.create_connection((host, int(port)), timeout=30)
    greeting = json.loads(plain.makefile("rb", buffering=0).readline().removeprefix(b"INFO "))
    context = ssl.create_default_context(cafile=authority)
    connection = context.wrap_socket(plain, server_hostname=host)
    signed = nkeys.from_seed(seed.encode()).sign(greeting["nonce"].encode())
    signature = base64.urlsafe_b64encode(signed).decode().rstrip("=")
    about = {"jwt": token, "sig": signature, "name": name, "verbose": False, "protocol": 1}
    connection.sendall(b"CONNECT %b\r\nPING\r\n" % json.dumps(about).encode())
    connection.settimeout(None)
    for line in connection.makefile("rb"):
        if line.startswith(b"PONG"):
            Path(taken).write_text(str(time.clock_gettime(time.CLOCK_BOOTTIME)))
        elif line.startswith(b"PING"):
            connection.sendall(b"PONG\r\n")
        elif line.startswith(b"-ERR"):
            sys.exit(line.decode())


if __name__ == "__main__":
    main()
