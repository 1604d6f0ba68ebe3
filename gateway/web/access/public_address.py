"""The address at which browsers reach the gateway, which differs from its own behind a proxy."""

from typing import NamedTuple
from urllib.parse import urlsplit

_DEFAULT_PORTS = {"http": 80, "https": 443}


class PublicAddress(NamedTuple):
    """Parts of GATEWAY_PUBLIC_URL. `path` begins and ends with a slash."""

    origin: str
    path: str
    is_https: bool

    @classmethod
    def parse(cls, url: str) -> "PublicAddress":
        """Takes a URL that the settings have accepted."""
        parts = urlsplit(url)
        path = f"/{parts.path.strip('/')}/".replace("//", "/")
        return cls(normal_origin(f"{parts.scheme}://{parts.netloc}"), path, parts.scheme == "https")


def normal_origin(origin: str) -> str:
    """An origin in lower case and without the port that its scheme stands for anyway."""
    parts = urlsplit(origin.lower())
    host = parts.netloc
    default_port = _DEFAULT_PORTS.get(parts.scheme)
    if default_port is not None:
        host = host.removesuffix(f":{default_port}")
    return f"{parts.scheme}://{host}"
