"""`gpuping creds leaf`: everything that the nats-server of a site needs."""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators

from bus import runner
from bus.addresses import is_loopback
from bus.contract.subjects import check_agent_id
from bus.errors import BadMessageError, GpupingError, SettingsError
from bus.identity import credentials
from bus.identity.authority import Authority
from bus.identity.local import LocalIdentities
from bus.identity.server.leaf import (
    CONTROL_LINE_BYTES,
    MOST_AGENTS,
    leaf_config,
    open_leaf_config,
)
from bus.identity.tls.files import TlsFiles
from bus.redaction import redact_address
from bus.transport.connection import is_private
from gpuping import extras
from gpuping.commands.command_settings import settings_of_fleet
from gpuping.commands.operate.creds import creds_app
from gpuping.commands.options import DataDir, examples
from gpuping.output import terminal

PORT = 4222


@creds_app.command(
    help_epilogue=examples(
        "gpuping creds leaf fra --hub tls://bus.example.org:7422 --agents fra-1,fra-2"
        " --tls-names gw.fra.example.org -o fra/"
    )
)
def leaf(  # noqa: PLR0913  # its options
    site: Annotated[str, Parameter(help="a name of the site")],
    /,
    *,
    hub: Annotated[str, Parameter(help="where the bus takes leaf nodes, as in tls://bus:7422")],
    agents: Annotated[str, Parameter(help="the ids of the site's agents, as in a-1,a-2")],
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="a folder for the files")],
    host: Annotated[str, Parameter(help="address at which its server listens")] = "127.0.0.1",
    port: Annotated[
        int, Parameter(validator=validators.Number(gte=1, lte=65_535), help="and its port")
    ] = PORT,
    tls_names: Annotated[
        str | None, Parameter(help="make a certificate of that server for these names")
    ] = None,
    without_credentials: Annotated[
        bool,
        Parameter(negative="", help="let these in without credentials, until the fleet's end date"),
    ] = False,
    data_dir: DataDir = None,
) -> int:
    """Make the configuration and credentials of a leaf node: the nats-server of a site behind NAT.

    It connects to the bus; the site's hosts connect to it, and enrol through it. The bus lets it
    carry what these agents hear and say, and no others. It hears of changed accounts, so that a
    revoked agent loses its connection there as well. Run `nats-server -c leaf.conf` in the folder.
    When an agent is added, make the files again and restart that server.

    --without-credentials is for hosts of before identities, after an upgrade: the server listens
    where they connect, without TLS, and whoever reaches it may answer for them. It ends with
    `gpuping creds unsigned`. A host that has a key is not believed through it.
    """
    settings = settings_of_fleet(data_dir)
    identities = LocalIdentities.open(settings.data_dir)
    site_agents = _checked([part.strip() for part in agents.split(",")], site)
    if "://" not in hub:
        raise SettingsError(f"--hub={hub!r}: expected an address like tls://bus.example.org:7422")
    if len(site_agents) > MOST_AGENTS:
        raise SettingsError(
            f"--agents names {len(site_agents)}: expected at most {MOST_AGENTS}; "
            "make a leaf node for each part of the site"
        )
    folder = output.absolute()
    authority = identities.authority
    until = None
    if without_credentials:
        if tls_names is not None:
            raise SettingsError("--tls-names: hosts of before identities speak without TLS")
        until = _end_of_unsigned(authority)
    files = TlsFiles(folder)
    _check_hub_uses_tls(hub, identities.tls_files)
    if not without_credentials:
        _check_hosts_use_tls(host, tls_names, files)
    if identities.tls_files.authority.exists():
        certificate_authority = identities.tls_files.authority.read_text(encoding="ascii")
        credentials.write_secret(files.authority, certificate_authority)
    if tls_names is not None:
        with extras.needed("server"):
            from bus.identity.tls import certificates
        names = [name.strip() for name in tls_names.split(",")]
        certificates.make_for_site(identities.tls_files, files, names)
    authority.issue("leaf", f"_{site}", folder / "leaf.creds", until=until, site_agents=site_agents)
    if without_credentials:
        text = open_leaf_config(site, hub, folder, agents=site_agents, host=host, port=port)
    else:
        authority.issue_leaf_system(f"_{site}", folder / "system-leaf.creds")
        text = leaf_config(authority, site, hub, folder, host=host, port=port)
    credentials.write_secret(folder / "leaf.conf", text)
    console = terminal.console()
    console.print(f"made {folder}: nats-server -c {folder / 'leaf.conf'}", soft_wrap=True)
    console.print(f"it may carry {len(site_agents)} agents", soft_wrap=True)
    if until is not None:
        end = datetime.fromtimestamp(until, UTC)
        console.print(
            f"whoever reaches it may answer for them, until {end:%Y-%m-%d %H:%M} UTC",
            soft_wrap=True,
        )
    console.print(
        "the bus needs `leafnodes { port: 7422 ... }`, with the same TLS as for clients, and "
        f"`max_control_line: {CONTROL_LINE_BYTES}`; `gpuping up` does with NATS_LEAF_PORT",
        soft_wrap=True,
    )
    return runner.DONE


def _check_hosts_use_tls(host: str, tls_names: str | None, files: TlsFiles) -> None:
    has_certificate = tls_names is not None or files.exist
    if not (has_certificate or is_loopback(host)):
        raise SettingsError(
            f"--host={host!r}: outside loopback its hosts need TLS: name with --tls-names how they "
            "reach it, or put your own server.pem and server.key into the folder"
        )


def _check_hub_uses_tls(hub: str, files: TlsFiles) -> None:
    """Where the fleet has an authority of its own, the configuration asks for TLS by naming it."""
    if not (is_private(hub) or files.authority.exists()):
        raise SettingsError(
            f"--hub={redact_address(hub)!r}: outside loopback the bus needs TLS: write tls://"
        )


def _end_of_unsigned(authority: Authority) -> int:
    """Until when reports without a signature count. Raises SettingsError where none do."""
    until = authority.fleet.unsigned_until
    if authority.fleet.requires_signed or until is None or until <= time.time():
        raise SettingsError(
            "--without-credentials: it is for a time in which unsigned reports count, and this "
            "fleet has none that ends: see `gpuping creds unsigned`"
        )
    return until


def _checked(agents: list[str], site: str) -> list[str]:
    """The ids. Raises GpupingError for one that no agent can have."""
    try:
        check_agent_id(site)
        return [check_agent_id(agent_id) for agent_id in agents]
    except BadMessageError as error:
        raise GpupingError(f"{error}") from None
