"""Where the certificate of a bus and the certificate authority of its fleet lie.

- `ca.pem`: whom clients must believe (NATS_CA); `ca.key` signs and can be kept offline;
- `server.pem` and `server.key`: what a nats-server shows; `server.pem` has the authority's too.

An operator's own certificate takes the place of `server.pem` and `server.key`; without a `ca.pem`
clients believe those authorities that their machine believes.
"""

from pathlib import Path
from typing import NamedTuple

from bus.identity.server.quoting import quoted


class TlsFiles(NamedTuple):
    """The files in one folder."""

    folder: Path

    @property
    def authority(self) -> Path:
        """The certificate of the authority; absent where the operator brought a certificate."""
        return self.folder / "ca.pem"

    @property
    def authority_key(self) -> Path:
        """The authority's private key."""
        return self.folder / "ca.key"

    @property
    def certificate(self) -> Path:
        """What the server shows."""
        return self.folder / "server.pem"

    @property
    def key(self) -> Path:
        """The server's private key."""
        return self.folder / "server.key"

    @property
    def exist(self) -> bool:
        """Whether a server can use them."""
        return self.certificate.exists() and self.key.exists()

    def server_config(self) -> str:
        """The lines of a nats-server's configuration that make every client use TLS."""
        return (
            f"tls {{ cert_file: {quoted(self.certificate)}, key_file: {quoted(self.key)}, "
            'timeout: "5s" }\n'
        )
