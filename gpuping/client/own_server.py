"""The nats-server that belongs to a data dir, with the identities of that data dir."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from bus.addresses import in_url, is_loopback
from bus.contract import subjects
from bus.errors import LayoutError, SettingsError
from bus.identity.local import LocalIdentities
from bus.identity.roles import RoleName
from bus.identity.server import leaf, store_folder
from bus.identity.server.quoting import quoted
from bus.identity.tls.files import TlsFiles
from bus.settings import Settings
from bus.transport import connection, embedded_server, jetstream_api, layout, server_watch
from bus.transport.embedded_server import EmbeddedServer
from bus.transport.jetstream_api import JetStreamApiError
from bus.transport.server_watch import Patience
from gpuping import extras
from gpuping.client import bus_file


class OwnServer(NamedTuple):
    """A running server. `settings` are those that were given, with its address."""

    settings: Settings
    identities: LocalIdentities

    def settings_of(self, role: RoleName) -> Settings:
        """The settings of a service, with the credentials of its role."""
        settings = self._with_credentials(self.identities.service(role))
        if role == "gateway" and settings.GATEWAY_BRIDGE_NETWORKS is not None:
            bridge_credentials = str(self.identities.service("bridge"))
            return msgspec.structs.replace(settings, NATS_BRIDGE_CREDS=bridge_credentials)
        if role != "scheduler":
            return settings
        system_credentials = self.identities.authority.scheduler_system_credentials
        return msgspec.structs.replace(settings, NATS_SYSTEM_CREDS=str(system_credentials))

    def settings_of_system(self) -> Settings:
        """The settings of whoever asks the server about itself."""
        return self._with_credentials(self._system_credentials)

    def settings_of_agent(self, agent_id: str) -> Settings:
        """The settings of an agent on this machine, with its credentials."""
        return self._with_credentials(self.identities.agent(agent_id))

    @property
    def _system_credentials(self) -> Path:
        return self.identities.authority.system_credentials

    def _with_credentials(self, path: Path) -> Settings:
        return msgspec.structs.replace(self.settings, NATS_CREDS=str(path))


@asynccontextmanager
async def running(
    settings: Settings,
    port: int | None,
    patience: Patience | None = None,
) -> AsyncIterator[OwnServer]:
    """The data dir's server for the length of a block; its streams stand when the block begins.

    It is started again when it ends, and ended when it hangs for longer than `patience`.

    The first start makes the identities, and takes over the streams of a version that had none.
    Raises AuthorityError, CredentialsError or BusError.
    """
    accounts_folder = embedded_server.accounts_folder(settings.data_dir)
    is_of_before = store_folder.has_old_streams(accounts_folder)
    identities = LocalIdentities.open_or_create(settings.data_dir)
    authority = identities.authority
    kept_streams = store_folder.take_over(accounts_folder, authority.fleet.account)
    if is_of_before:
        authority.accept_unsigned()

    uses_tls = not is_loopback(settings.NATS_HOST)
    if uses_tls:
        _check_certificate(settings, identities.tls_files)

    def config() -> str:
        authority.reload()  # `gpuping creds` may have changed it
        lines = identities.server_config()
        tls = ""
        if uses_tls:
            tls = identities.tls_files.server_config()
        lines += tls
        if settings.NATS_LEAF_PORT is not None:
            lines += (
                f"max_control_line: {leaf.CONTROL_LINE_BYTES}\n"
                f"leafnodes {{\n  host: {quoted(settings.NATS_HOST)}\n"
                f"  port: {settings.NATS_LEAF_PORT}\n  {tls}}}\n"
            )
        return lines

    async with embedded_server.running(
        settings.data_dir, port, config, settings.NATS_HOST
    ) as server:
        url = server.url
        if uses_tls:
            settings = _with_tls(settings, identities.tls_files, server)
            url = settings.nats_url
        settings = msgspec.structs.replace(settings, NATS_URL=url)
        settings = bus_file.with_rules_of(settings, authority.fleet)
        own_server = OwnServer(settings, identities)
        identities.write_context(url, settings.NATS_CA)
        await _make_layout(own_server.settings_of("layout"), kept_streams)
        async with server_watch.watching(server, own_server.settings_of_system(), patience):
            yield own_server


async def _make_layout(settings: Settings, kept_streams: tuple[str, ...]) -> None:
    """Makes streams and consumers, but not in place of some that are on the disk and not found."""
    inbox_prefix = subjects.service_inbox("layout")
    async with connection.connected(settings, "layout", inbox_prefix=inbox_prefix) as client:
        for name in kept_streams:
            try:
                await jetstream_api.call(client, f"STREAM.INFO.{name}")
            except JetStreamApiError as error:
                raise LayoutError(
                    f"the stream {name} is on the disk and the server does not find it ({error}): "
                    "nothing was changed"
                ) from None
        await layout.ensure(client, settings, grow=True)


def _check_certificate(settings: Settings, files: TlsFiles) -> None:
    """Raises SettingsError where the bus would listen outside loopback without a certificate."""
    if not files.exist:
        raise SettingsError(
            f"NATS_HOST={settings.NATS_HOST!r}: outside loopback the bus needs a certificate: "
            f"`gpuping creds init --tls-names NAME --data-dir {settings.data_dir}`, with the name "
            "or address at which GPU hosts reach this machine"
        )


def _with_tls(
    settings: Settings,
    files: TlsFiles,
    server: EmbeddedServer,
) -> Settings:
    """The settings of this machine's services, and where hosts elsewhere reach the bus."""
    with extras.needed("server"):
        from bus.identity.tls import certificates
    names = certificates.names_of(files.certificate)
    local_name = server.local_host
    if local_name not in names and names:
        local_name = names[0]  # of a certificate that the operator brought
    public_url = settings.NATS_PUBLIC_URL
    if public_url is None and names:
        public_url = f"tls://{in_url(names[0])}:{server.port}"
    certificate_authority = settings.NATS_CA
    if files.authority.exists():
        certificate_authority = str(files.authority.absolute())
    return msgspec.structs.replace(
        settings,
        NATS_URL=f"tls://{in_url(local_name)}:{server.port}",
        NATS_CA=certificate_authority,
        NATS_PUBLIC_URL=public_url,
    )
