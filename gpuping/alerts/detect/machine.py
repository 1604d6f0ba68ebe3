"""What a process sees of its own machine: disk, TLS certificates and credentials."""

import re
import shutil
import socket
import ssl
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from bus.identity import claims, credentials, local
from bus.identity.authority import Authority, AuthorityError
from bus.identity.claims import InvalidTokenError
from bus.identity.credentials import CredentialsError
from bus.identity.fleet_file import Issued
from bus.settings import Settings

CONNECT_SECONDS = 5.0
LONGEST_GREETING = 65_536


class Address(NamedTuple):
    """Where a certificate is shown. A NATS server greets in plain text before it."""

    host: str
    port: int
    greets: bool = False
    authority: str | None = None  # who signed it (a PEM file), beside those that the machine trusts

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Expiry(NamedTuple):
    """What expires, and when; `problem` where that cannot be seen because it is refused."""

    name: str
    at: datetime | None
    problem: str | None = None


def name() -> str:
    """The name of this machine as a part of a key."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", socket.gethostname())[:63] or "machine"


def free_percent(folder: Path) -> float | None:
    """How much of the disk of a folder is free; None for a folder that does not exist."""
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return None
    return 100.0 * usage.free / usage.total


def holds_the_bus(data_dir: Path) -> bool:
    """Whether the data dir is that of `gpuping up`, with the bus and storage in it."""
    return (data_dir / "nats").is_dir()


def addresses(settings: Settings, more: Iterable[str]) -> list[Address]:
    """The addresses whose certificates count: of the bus, of the gateway, and those named."""
    found = []
    for url in settings.nats_url.split(","):
        parts = urlsplit(url.strip())
        if parts.scheme in {"tls", "wss"} and parts.hostname:
            greets = parts.scheme == "tls"
            usual_port = 4222 if greets else 443
            host_port = parts.port or usual_port
            found.append(Address(parts.hostname, host_port, greets, settings.NATS_CA))
    public = urlsplit(settings.GATEWAY_PUBLIC_URL or "")
    if public.scheme == "https" and public.hostname:
        found.append(Address(public.hostname, public.port or 443))
    for text in more:
        host, _, port = text.rpartition(":")
        found.append(Address(host.strip("[]"), int(port)))
    return found


def certificate_expiry(address: Address) -> Expiry | None:
    """When the certificate at an address expires; None where nothing answers there.

    One that is refused, because it has expired for example, has a problem instead. This blocks.
    """
    try:
        with socket.create_connection((address.host, address.port), CONNECT_SECONDS) as plain:
            if address.greets:
                _read_greeting(plain)
            context = ssl.create_default_context()
            if address.authority is not None:
                context.load_verify_locations(Path(address.authority).expanduser())
            with context.wrap_socket(plain, server_hostname=address.host) as secure:
                certificate = secure.getpeercert()
    except ssl.SSLCertVerificationError as error:
        return Expiry(str(address), None, error.verify_message)
    except OSError:
        return None
    if not certificate:
        return None
    ends = ssl.cert_time_to_seconds(str(certificate["notAfter"]))
    return Expiry(str(address), datetime.fromtimestamp(ends, UTC))


def _read_greeting(plain: socket.socket) -> None:
    """Reads the line with which a NATS server begins, one byte at a time: TLS follows it."""
    for _ in range(LONGEST_GREETING):
        if plain.recv(1) in {b"\n", b""}:
            return


def credential_expiries(settings: Settings) -> Iterator[Expiry]:
    """The credentials of this process, and those that an authority in the data dir has issued."""
    if settings.NATS_CREDS:
        path = Path(settings.NATS_CREDS).expanduser()
        try:
            user = claims.decode(credentials.read(path).token)
        except (CredentialsError, InvalidTokenError):
            user = None
        if user is not None and user.expires_at:
            yield Expiry(path.name, datetime.fromtimestamp(user.expires_at, UTC))
    if not local.exist(settings.data_dir):
        return
    try:
        authority = Authority.load(local.folder_of(settings.data_dir))
    except AuthorityError:
        return
    for issued in _newest(authority):
        if issued.expires_at:
            expires = datetime.fromtimestamp(issued.expires_at, UTC)
            yield Expiry(f"{issued.role} {issued.name}", expires)


def _newest(authority: Authority) -> Iterable[Issued]:
    """The last credentials of each user that were not revoked and did not expire long ago."""
    newest: dict[tuple[str, str], Issued] = {}
    for issued in authority.issued():
        if issued.public_key not in authority.fleet.revoked and issued.role != "bootstrap":
            newest[issued.role, issued.name] = issued
    forgotten = time.time() - 30 * 86_400
    return [one for one in newest.values() if not one.expires_at or one.expires_at > forgotten]
