"""`gpuping creds`: makes, lists, revokes and rotates the identities of a fleet."""

import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from cyclopts import App, Parameter, validators
from rich.table import Table

from bus import runner
from bus.contract import subjects
from bus.contract.enrolment import HostKeys, IssuedReply, IssuedRequest
from bus.errors import BadMessageError, BusError, GpupingError, SettingsError
from bus.identity import local
from bus.identity.authority import Authority
from bus.identity.fleet_file import Issued
from bus.identity.keys import InvalidKeyError, KeyKind, check_public_key
from bus.identity.local import LocalIdentities
from bus.identity.roles import ROLES, RoleName
from bus.identity.server.config import identity_config, is_current
from bus.identity.tls.files import TlsFiles
from bus.runner import Lifecycle
from bus.settings import Settings
from bus.transport import account_updates
from bus.transport.bucket import read
from bus.transport.micro_services import ask
from gpuping import extras
from gpuping.client import bus_file
from gpuping.client.bus_connection import connect_to_running
from gpuping.commands.command_settings import load_settings, settings_of_fleet
from gpuping.commands.options import CHECK, AgentId, DataDir, Json, app, bullets, examples
from gpuping.output import terminal
from gpuping.output.json_text import print_json

ServiceRole = Literal[
    "scheduler", "storage", "gateway", "enrolment", "alerts", "bridge", "layout", "operator", "leaf"
]

MOST_NAMED = 10
# How the users of a role come by credentials of a new signing key.
BY_NEW_CREDENTIALS = "restart `gpuping up`, or give each user of it new credentials"
RENEWED_BY: dict[RoleName, str] = {
    "agent": "let hosts renew theirs, which takes 6 hours while agentd runs",
    "bootstrap": "let the enrolment tokens be used or expire that are out",
}

creds_app = App(
    name="creds",
    group=CHECK,
    help_format="markdown",
    help=f"""\
Make and revoke the identities of a fleet: who may do what on the bus.

`gpuping up` makes its own at its first start. For servers of your own: `creds init` makes the
authority and the server's configuration, `creds service` the credentials of each service.

Roles:

{bullets({name: role.purpose for name, role in ROLES.items()})}
""",
    help_epilogue=examples(
        "gpuping creds init --data-dir /etc/gpuping",
        "gpuping creds service scheduler -o scheduler.creds",
        "gpuping creds service layout scheduler storage gateway -o creds/",
        "gpuping creds revoke agent-001",
        "gpuping creds list",
    ),
)
app.command(creds_app)

TlsNames = Annotated[
    str | None,
    Parameter(help="make a certificate of the bus for these names and addresses"),
]
TlsCertificate = Annotated[
    Path | None, Parameter(help="your own certificate of the bus (PEM, with its chain)")
]
TlsKey = Annotated[Path | None, Parameter(help="the unencrypted private key of --tls-cert")]
CredentialsFile = Annotated[
    Path | None,
    Parameter(name=["--output", "-o"], help="write to this file, or into this folder"),
]
Days = Annotated[
    int | None,
    Parameter(validator=validators.Number(gte=1, lte=3650), help="until they expire"),
]


@creds_app.command(
    help_epilogue=examples(
        "gpuping creds init",
        "gpuping creds init --tls-names bus.example.org,192.0.2.7",
        "gpuping creds init --tls-cert fullchain.pem --tls-key privkey.pem",
    )
)
def init(
    *,
    data_dir: DataDir = None,
    resolver_dir: Annotated[
        Path, Parameter(help="where the server keeps accounts, as the server sees the path")
    ] = Path("resolver"),
    tls_names: TlsNames = None,
    tls_cert: TlsCertificate = None,
    tls_key: TlsKey = None,
) -> int:
    """Make the authority of a fleet, and the part of a nats-server's configuration that trusts it.

    It never overwrites one. Keep `operator.seed` and `account.seed` somewhere safe and offline: who
    has them can make any identity. They are needed again to revoke and to rotate.

    With --tls-names it makes a certificate for the bus as well, signed by an authority of the
    fleet's own, or takes yours with --tls-cert and --tls-key. Either may be done later, and again:
    hosts that have joined believe the new certificate of the same authority.
    """
    settings = _settings_of_authority(data_dir)
    folder = local.folder_of(settings.data_dir)
    console = terminal.console()
    wants_certificate = bool(tls_names or tls_cert or tls_key)
    if not (wants_certificate and local.exist(settings.data_dir)):
        authority = Authority.create(folder)
        config = folder / "server.conf"
        config.write_text(identity_config(authority, resolver_dir, anonymous_looks=True))
        console.print(f"made {folder}; a nats-server trusts it with this line in its configuration")
        console.print(f"  include {config}", soft_wrap=True)
        console.print("next: gpuping creds service layout, scheduler, storage, gateway, operator")
    if wants_certificate:
        _make_certificate(local.tls_files_of(folder), tls_names, tls_cert, tls_key)
    return runner.DONE


@creds_app.command(help_epilogue=examples("gpuping creds config --data-dir /etc/gpuping"))
def config(
    *,
    data_dir: DataDir = None,
    resolver_dir: Annotated[
        Path, Parameter(help="where the server keeps accounts, as the server sees the path")
    ] = Path("resolver"),
) -> int:
    """Bring `server.conf` into line with this version: new roles and changed permissions.

    For servers of your own after an upgrade; then reload or restart them. `gpuping up` does so at
    each start. A file that is right already stays as it is.
    """
    authority = LocalIdentities.open(_settings_of_authority(data_dir).data_dir).authority
    authority.add_missing_roles()
    path = authority.folder / "server.conf"
    if path.exists() and is_current(authority, path.read_text(encoding="utf-8")):
        terminal.console().print(f"{path} is right already", soft_wrap=True)
        return runner.DONE
    path.write_text(identity_config(authority, resolver_dir, anonymous_looks=True))
    terminal.console().print(f"wrote {path}", soft_wrap=True)
    return runner.DONE


def _make_certificate(
    files: TlsFiles,
    names: str | None,
    certificate: Path | None,
    key: Path | None,
) -> None:
    with extras.needed("server"):
        from bus.identity.tls import certificates
    is_own = certificate is not None and key is not None
    if is_own == (names is not None) or (certificate is None) != (key is None):
        raise SettingsError(
            "expected --tls-names NAME,NAME for a new certificate, "
            "or --tls-cert FILE and --tls-key FILE for one of your own"
        )
    if certificate is not None and key is not None:
        certificates.adopt(files, certificate, key)
    if names is not None:
        certificates.make(files, [name.strip() for name in names.split(",")])
    console = terminal.console()
    known_as = ", ".join(certificates.names_of(files.certificate))
    until = f"{certificates.expires_at(files.certificate):%Y-%m-%d}"
    console.print(f"the certificate of the bus is for {known_as}, until {until}", soft_wrap=True)
    console.print("NATS_HOST=0.0.0.0 gpuping up uses it; a server of your own does with")
    console.print(f"  {files.server_config().strip()}", soft_wrap=True)
    if files.authority.exists():
        console.print(f"clients believe it with NATS_CA={files.authority}", soft_wrap=True)


@creds_app.command(
    help_epilogue=examples(
        "gpuping creds service scheduler -o scheduler.creds",
        "gpuping creds service layout scheduler storage gateway -o creds/",
        "gpuping creds service gateway -o gateway.creds --if-needed",
    )
)
def service(
    roles: Annotated[tuple[ServiceRole, ...], Parameter(help="what it may do on the bus")],
    /,
    *,
    output: CredentialsFile = None,
    days: Days = None,
    if_needed: Annotated[
        bool, Parameter(negative="", help="leave valid ones, and replace those that are not")
    ] = False,
    data_dir: DataDir = None,
) -> int:
    """Make the credentials of services, or of the operator (10 years, unless --days is given).

    Of several roles each gets a file ROLE.creds; --output is their folder then, which is made where
    it is not there. --if-needed is for
    scripts that run at each start: it replaces a file whose key is revoked, expires within 30 days
    or is of an earlier signing key, and leaves every other as it is.
    """
    if len(roles) > 1 and output is not None:
        try:
            output.mkdir(mode=0o700, parents=True, exist_ok=True)
        except FileExistsError:
            raise SettingsError(
                f"--output={str(output)!r}: expected a folder for several roles"
            ) from None
    for role in roles:
        if if_needed:
            _issue_if_needed(role, output, data_dir)
            continue
        _issue(role, f"_{role}", f"{role}.creds", output, days, data_dir)
    return runner.DONE


@creds_app.command(
    help_epilogue=examples(
        "gpuping creds agent agent-001 -o agent-001.creds",
        "gpuping creds agent agent-001 --days 365",
    )
)
def agent(
    agent_id: AgentId,
    /,
    *,
    output: CredentialsFile = None,
    days: Days = None,
    data_dir: DataDir = None,
) -> int:
    """Make the credentials of one agent here, and carry them to the host yourself (90 days).

    `gpuping enroll new` is better: the host then makes its own keys, and no secret travels.
    """
    return _issue("agent", agent_id, f"agent-{agent_id}.creds", output, days, data_dir)


@creds_app.command(help_epilogue=examples("gpuping creds revoke agent-001"))
def revoke(
    agent: Annotated[str, Parameter(name="ID", help="the agent's id, or one public key")],
    /,
    *,
    data_dir: DataDir = None,
) -> int:
    """Void every credential of an agent now: its connection is closed, and it cannot come back.

    The agent stays registered and misses its pings; remove it to end that. It may be enrolled again
    under new keys. A public key instead of the id voids the credentials of that key alone.
    """
    settings = bus_file.with_running_bus(settings_of_fleet(data_dir))
    authority = LocalIdentities.open(settings.data_dir).authority

    async def main(_: Lifecycle) -> None:
        keys = await revoke_keys(settings, authority, agent)
        if not keys:
            raise GpupingError(f"no credentials of {agent} were issued from {authority.folder}")
        terminal.console().print(f"revoked {len(keys)} credentials of {agent}", soft_wrap=True)

    return runner.run_command(main)


async def revoke_keys(settings: Settings, authority: Authority, agent: str) -> set[str]:
    """Voids the credentials of an agent, or of one public key. Returns the keys; none, none known.

    Raises UnavailableError or AccountRefusedError where no server takes it.
    """
    keys = _keys_of(authority, agent) | await _enrolled_keys(settings, agent)
    try:
        elsewhere = await _issued_elsewhere(settings)
    except BusError as error:
        runner.complain(f"only the keys that are known here and in the registry: {error}")
        elsewhere = []
    keys |= {user.public_key for user in elsewhere if user.name == agent}
    if keys:
        authority.revoke(keys)
        await account_updates.push(settings, authority, authority.roles_of(keys))
    return keys


@creds_app.command(
    help_epilogue=examples(
        "gpuping creds rotate gateway",
        "gpuping creds rotate gateway --retire",
        "gpuping creds rotate gateway --retire --now",
    )
)
def rotate(
    role: Annotated[RoleName, Parameter(help="whose signing key changes")],
    /,
    *,
    retire: Annotated[
        bool, Parameter(negative="", help="end the rotation: void what the earlier key signed")
    ] = False,
    now: Annotated[
        bool, Parameter(negative="", help="with --retire: shut out who has no new credentials yet")
    ] = False,
    data_dir: DataDir = None,
) -> int:
    """Change the signing key of a role, in two steps, so that nobody is cut off.

    Without --retire a new key signs from now on, and the earlier one is still believed. Once every
    user of the role has new credentials, --retire voids what the earlier key signed; `gpuping up`
    makes new ones when it starts. Where somebody has none yet, --retire names them and changes
    nothing, unless --now is given: after a theft. The account's own key never changes: the server
    names the folder of the streams by it.
    """
    settings = bus_file.with_running_bus(settings_of_fleet(data_dir))
    authority = LocalIdentities.open(settings.data_dir).authority
    if now and not retire:
        raise SettingsError("--now: expected --retire with it")

    async def main(_: Lifecycle) -> None:
        if retire:
            if not now:
                await _refuse_while_not_renewed(settings, authority, role)
            done = f"{authority.retire(role)} earlier signing keys of {role} are void"
        else:
            authority.rotate(role)
            done = (
                f"{role} has a new signing key. First {RENEWED_BY.get(role, BY_NEW_CREDENTIALS)}: "
                f"what the earlier key signed is void after "
                f"`gpuping creds rotate {role} --retire`, which finishes this"
            )
        await account_updates.push(settings, authority, [role])
        terminal.console().print(done, soft_wrap=True)

    return runner.run_command(main)


async def _refuse_while_not_renewed(
    settings: Settings,
    authority: Authority,
    role: RoleName,
) -> None:
    """Raises GpupingError where `retire` would shut somebody out, or nobody can tell."""
    elsewhere: list[Issued] = []
    if role == "agent":
        try:
            elsewhere = await _issued_elsewhere(settings)
        except BusError as error:
            raise GpupingError(
                f"{error}: it knows which hosts have no new credentials yet. Nothing was changed; "
                f"`gpuping creds rotate {role} --retire --now` shuts them out"
            ) from None
    not_renewed = authority.not_renewed(role, elsewhere)
    if not_renewed:
        raise GpupingError(
            f"{len(not_renewed)} of {role} would be shut out, with credentials that the "
            f"earlier key signed: {_some(not_renewed)}. Give them new ones first; "
            f"`gpuping creds rotate {role} --retire --now` shuts them out"
        )


@creds_app.command(
    name="list", help_epilogue=examples("gpuping creds list", "gpuping creds list --json")
)
def list_issued(*, data_dir: DataDir = None, json: Json = False) -> int:
    """Show who was given credentials from here, until when, and who is revoked."""
    settings = settings_of_fleet(data_dir)
    authority = LocalIdentities.open(settings.data_dir).authority

    async def main(_: Lifecycle) -> None:
        users = {user.public_key: user for user in authority.issued()}
        try:
            for user in await _issued_elsewhere(settings):
                users.setdefault(user.public_key, user)
        except BusError as error:
            runner.complain(f"hosts that an enrolment service let in are not listed: {error}")
        _show_issued(sorted(users.values(), key=lambda user: user.issued_at), authority, json=json)

    return runner.run_command(main)


def _show_issued(users: Iterable[Issued], authority: Authority, *, json: bool) -> None:
    if json:
        rows = []
        for user in users:
            row: dict[str, object] = msgspec.to_builtins(user)
            rows.append(row | {"standing": _standing(user, authority)})
        print_json(rows)
        return
    table = Table("role", "name", "key", "issued", "expires", "standing")
    for user in users:
        table.add_row(
            user.role,
            user.name,
            user.public_key,
            _day(user.issued_at),
            _day(user.expires_at),
            _standing(user, authority),
        )
    terminal.console().print(table)
    terminal.console().print(f"the fleet's public key: {authority.fleet.account}", soft_wrap=True)


def _issue(
    role: RoleName,
    name: str,
    file_name: str,
    output: Path | None,
    days: int | None,
    data_dir: Path | None,
) -> int:
    authority = LocalIdentities.open(settings_of_fleet(data_dir).data_dir).authority
    path = output or Path(file_name)
    if path.is_dir():
        path /= file_name
    if path.exists():
        advice = ""
        if role != "agent":
            advice = "; --if-needed replaces it where it is void or of an earlier signing key"
        raise GpupingError(f"{path} exists already; it is not overwritten{advice}")
    others = _good_credentials(authority, role, name)
    public_key = authority.issue(role, name, path, days=days)
    terminal.console().print(f"{path}: {role} {name}, key {public_key}", soft_wrap=True)
    if others:
        runner.complain(
            f"{len(others)} earlier credentials of {name} stay good, so that whoever has them is "
            f"{name} as well: `gpuping creds revoke KEY` voids each of {_some(others)}"
        )
    return runner.DONE


def _good_credentials(authority: Authority, role: RoleName, name: str) -> list[str]:
    """The keys in a role and name whose credentials of this folder are good."""
    found = []
    for user in authority.issued():
        if (user.role, user.name) == (role, name) and _standing(user, authority) == "valid":
            found.append(user.public_key)
    return found


def _issue_if_needed(
    role: ServiceRole,
    output: Path | None,
    data_dir: Path | None,
) -> None:
    identities = LocalIdentities.open(settings_of_fleet(data_dir).data_dir)
    path = output or Path(f"{role}.creds")
    if path.is_dir():
        path /= f"{role}.creds"
    if identities.keep_valid(role, f"_{role}", path):
        terminal.console().print(f"{path}: {role} _{role}", soft_wrap=True)


async def _enrolled_keys(settings: Settings, name: str) -> set[str]:
    """The login key of an agent that an enrolment service elsewhere let in; none without a bus."""
    try:
        key = subjects.host_key(subjects.check_agent_id(name))
        async with connect_to_running(_as_operator(settings)) as client:
            recorded = await read(client, key, HostKeys)
    except (BusError, BadMessageError):
        return set()
    if recorded is None:
        return set()
    return {recorded.value.login_key}


async def _issued_elsewhere(settings: Settings) -> list[Issued]:
    """The agents that an enrolment service apart from this folder has let in. Raises BusError.

    That of `gpuping up` notes them in this folder, and is not asked.
    """
    names_a_bus = settings.NATS_URL or settings.NATS_CONTEXT
    if not names_a_bus or bus_file.find(settings.data_dir) is not None:
        return []
    found: list[Issued] = []
    async with connect_to_running(_as_operator(settings)) as client:
        while True:
            page = await ask(
                client,
                subjects.ISSUED_CREDENTIALS,
                IssuedRequest(skip=len(found)),
                IssuedReply,
                who="the enrolment service",
            )
            if not page.agents:
                return found
            for agent in page.agents:
                user = Issued(
                    role="agent",
                    name=agent.agent_id,
                    public_key=agent.public_key,
                    issued_at=agent.issued_at,
                    expires_at=agent.expires_at,
                    signed_by=agent.signed_by,
                )
                found.append(user)


def _as_operator(settings: Settings) -> Settings:
    """The settings with an operator's credentials, which are made where none are named."""
    found = bus_file.with_running_bus(settings)
    if found.NATS_CREDS is not None:
        return found
    operator = LocalIdentities.open(settings.data_dir).service("operator")
    return msgspec.structs.replace(found, NATS_CREDS=str(operator))


def _keys_of(authority: Authority, name: str) -> set[str]:
    """The login keys of an agent that were issued here; of a public key, that key."""
    try:
        return {check_public_key(name, KeyKind.USER)}
    except InvalidKeyError:
        return {user.public_key for user in authority.issued() if user.name == name}


def _settings_of_authority(data_dir: Path | None) -> Settings:
    return load_settings(default_log_level="warning", GPUPING_DATA_DIR=data_dir)


def _some(names: list[str]) -> str:
    """The first names of a list, and how many more there are."""
    shown = ", ".join(names[:MOST_NAMED])
    if len(names) > MOST_NAMED:
        shown += f" and {len(names) - MOST_NAMED} more"
    return shown


def _standing(user: Issued, authority: Authority) -> str:
    if user.public_key in authority.fleet.revoked:
        return "revoked"
    if not authority.is_believed(user):
        return "void"  # its signing key was retired
    if user.expires_at <= time.time():
        return "expired"
    return "valid"


def _day(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}"
