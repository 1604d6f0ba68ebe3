"""Reads the address of an agent. Pure, and strict: what has two readings is refused.

Libraries differ about `127.1`, `0x7f000001`, `user@host` or full-width digits, and an attack begins
where the one that checks reads another host than the one that connects. Here a host is an address
in its one usual form, or a plain name.
"""

import ipaddress
import re
from typing import NoReturn

from msgspec import Struct

from bus.errors import GpupingError

_URL = re.compile(
    r"(?P<scheme>https?)://"
    r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)"
    r"(:(?P<port>[0-9]{1,5}))?"
    r"(?P<path>(/[A-Za-z0-9._~-]+)*)/?",
)
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")  # ends a host that some libraries take for IPv4
_DEFAULT_PORTS = {"http": 80, "https": 443}
_LONGEST_NAME = 253


class AgentUrlError(GpupingError):
    """An agent_url that is not asked. The text says what is wrong with it."""


class AgentUrl(Struct, frozen=True):
    """Where an agent is asked. `host` is a name, or an address without brackets."""

    scheme: str
    host: str
    port: int
    path: str
    is_address: bool

    def at(self, path: str) -> str:
        """The URL of one of the agent's endpoints."""
        host = self.host
        if ":" in host:
            host = f"[{host}]"
        return f"{self.scheme}://{host}:{self.port}{self.path}{path}"


def parse(text: str) -> AgentUrl:
    """Reads an agent_url. Raises AgentUrlError for one that is not asked."""
    found = _URL.fullmatch(text)
    if found is None:
        _explain(text)
    port = _DEFAULT_PORTS[found["scheme"]]
    if found["port"] is not None:
        port = int(found["port"])
    if not 1 <= port <= 65_535:
        raise AgentUrlError(f"its port is {port}: expected 1 to 65535")
    path = found["path"]
    if {".", ".."} & set(path.split("/")):
        raise AgentUrlError("its path has dots for folders")
    host = found["host"]
    address = _address(host)
    if address is not None:
        return AgentUrl(found["scheme"], address, port, path, is_address=True)
    _check_name(host)
    return AgentUrl(found["scheme"], host.lower(), port, path, is_address=False)


def _explain(text: str) -> NoReturn:
    scheme, separator, rest = text.partition("://")
    if not separator or scheme not in _DEFAULT_PORTS:
        raise AgentUrlError("expected an address that begins with http:// or https://")
    authority = re.split(r"[/?#]", rest)[0]
    if "@" in authority:
        raise AgentUrlError("it has a user or a password")
    if not text.isascii():
        raise AgentUrlError("it has other characters than ASCII")
    if "?" in rest or "#" in rest:
        raise AgentUrlError("it has a query or a fragment")
    raise AgentUrlError("expected an address like http://agent-host:8001")


def _address(host: str) -> str | None:
    """The address that a host is, in its one usual form; None for a name."""
    try:
        if host.startswith("["):
            return str(ipaddress.IPv6Address(host[1:-1]))
        return str(ipaddress.IPv4Address(host))
    except ValueError:
        if host.startswith("["):
            raise AgentUrlError("what is in its brackets is no IPv6 address") from None
        return None


def _check_name(name: str) -> None:
    if name.endswith("."):
        raise AgentUrlError("its host ends with a dot")
    labels = name.split(".")
    if len(name) > _LONGEST_NAME or not all(_LABEL.fullmatch(label) for label in labels):
        raise AgentUrlError("its host is no name of a host")
    if _NUMBER.fullmatch(labels[-1]):
        raise AgentUrlError("its host is an address in another form than 192.0.2.1")
    if any(label.lower().startswith("xn--") for label in labels):
        raise AgentUrlError("its host is an internationalized name: use another, or the address")
