"""The identities of one data dir: its authority, and the credentials of what runs on this machine.

<data dir>/identity/             the authority (bus/identity/authority.py)
<data dir>/identity/users/       credentials: ROLE.creds of services, agent-ID.creds of agents
<data dir>/identity/nats/context/operator.json   the same bus for the `nats` CLI
<data dir>/identity/resolver/    accounts as they were last pushed to the embedded server
<data dir>/identity/embedded-server.conf   whom the embedded server believes, as it last started
<data dir>/identity/tls/         the certificate of the bus, where one was made or brought
"""

import time
from pathlib import Path

import msgspec
import structlog

from bus.contract import subjects
from bus.contract.subjects import check_agent_id
from bus.identity import claims, credentials, fleet_file
from bus.identity.authority import Authority, AuthorityError
from bus.identity.claims import InvalidTokenError
from bus.identity.credentials import CredentialsError
from bus.identity.roles import RoleName
from bus.identity.server.config import identity_config
from bus.identity.tls.files import TlsFiles

log = structlog.get_logger("bus.identity.local")

SECRETS = ("*.seed", "*.creds", "signing/*.seed", "users/*.creds", "tls/*.key")  # of a folder
RENEW_BEFORE_SECONDS = 30 * 86_400
CONTEXT_NAME = "operator"


class LocalIdentities:
    """Makes and keeps the credentials of this machine's services and agents."""

    def __init__(self, authority: Authority) -> None:
        self.authority = authority

    @classmethod
    def open(cls, data_dir: Path) -> "LocalIdentities":
        """Reads the authority of a data dir.

        Raises AuthorityError where there is none, and CredentialsError where others can read any
        key of it, be it used now or not.
        """
        folder = folder_of(data_dir)
        authority = Authority.load(folder)
        credentials.refuse_readable(path for pattern in SECRETS for path in folder.glob(pattern))
        return cls(authority)

    @classmethod
    def open_or_create(cls, data_dir: Path) -> "LocalIdentities":
        """Reads the authority of a data dir, or makes it at the first start."""
        if exist(data_dir):
            identities = cls.open(data_dir)
            identities.authority.add_missing_roles()
            return identities
        return cls(Authority.create(folder_of(data_dir)))

    @property
    def resolver_folder(self) -> Path:
        """Where the embedded server keeps accounts."""
        return self.authority.folder / "resolver"

    @property
    def tls_files(self) -> TlsFiles:
        """The certificate of the bus; its files need not exist."""
        return tls_files_of(self.authority.folder)

    def service(self, role: RoleName) -> Path:
        """The credentials file of a service's role, or of the operator."""
        return self._valid(role, f"_{role}", self.authority.folder / "users" / f"{role}.creds")

    def agent(self, agent_id: str) -> Path:
        """The credentials file of an agent that runs on this machine."""
        check_agent_id(agent_id)
        path = self.authority.folder / "users" / f"agent-{agent_id}.creds"
        return self._valid("agent", agent_id, path)

    def server_config(self) -> str:
        """The part of the embedded server's configuration that makes it believe this authority.

        Without the operator's key it is that of the last start with it: nobody can change an
        account meanwhile. Raises AuthorityError where there was none.
        """
        path = self.authority.folder / "embedded-server.conf"
        if self.authority.can_revoke:
            text = identity_config(self.authority, self.resolver_folder, anonymous_looks=True)
            credentials.write_secret(path, text)
            return text
        if not path.exists():
            raise AuthorityError(
                f"{self.authority.folder / 'operator.seed'} is not here, and neither is {path}, "
                "which a start with it leaves: put one of them back from a backup"
            )
        log.warning(
            "operator_key_absent",
            action="nothing can be revoked or rotated: put identity/operator.seed back for that",
        )
        return credentials.read_secret(path)

    def write_context(self, nats_url: str, certificate_authority: str | None) -> None:
        """Writes the operator's context for the `nats` CLI."""
        context = {
            "description": "gpuping, as its operator",
            "url": nats_url,
            "creds": str(self.service("operator").absolute()),
            "inbox_prefix": subjects.service_inbox("operator"),
        }
        if certificate_authority is not None:
            context["ca"] = certificate_authority
        path = self.authority.folder / "nats" / "context" / f"{CONTEXT_NAME}.json"
        text = msgspec.json.format(msgspec.json.encode(context)).decode()
        credentials.write_secret(path, text + "\n")

    def _valid(
        self,
        role: RoleName,
        name: str,
        path: Path,
    ) -> Path:
        """The path, after the file in it was made where it is missing or soon expires."""
        self.keep_valid(role, name, path)
        return path

    def keep_valid(
        self,
        role: RoleName,
        name: str,
        path: Path,
    ) -> bool:
        """Makes a credentials file that is missing, void or soon expires. Whether it did so."""
        if self._is_valid(role, path):
            return False
        self.authority.issue(role, name, path)
        return True

    def _is_valid(self, role: RoleName, path: Path) -> bool:
        if not path.exists():
            return False
        credentials.refuse_readable([path])  # what was read by others would stay good
        try:
            user = claims.decode(credentials.read(path).token)
        except (CredentialsError, InvalidTokenError):
            return False
        if user.issuer != self.authority.fleet.signing_keys[role]:
            return False
        if user.nats.get("issuer_account") != self.authority.account_of(role):
            return False  # an earlier version made it, which has this role in another account
        if user.subject in self.authority.fleet.revoked:
            return False
        return user.expires_at == 0 or user.expires_at - time.time() > RENEW_BEFORE_SECONDS


def folder_of(data_dir: Path) -> Path:
    """The folder of a data dir's authority."""
    return data_dir / "identity"


def tls_files_of(identity_folder: Path) -> TlsFiles:
    """Where the certificate of the bus lies beside an authority."""
    return TlsFiles(identity_folder / "tls")


def exist(data_dir: Path) -> bool:
    """Whether the data dir has an authority."""
    return (folder_of(data_dir) / fleet_file.FLEET).exists()
