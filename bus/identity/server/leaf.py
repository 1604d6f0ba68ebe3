"""The configuration of a leaf node: the nats-server of a site, to which its hosts connect."""

import secrets
from collections.abc import Sequence
from pathlib import Path

from bus.contract import subjects
from bus.identity.authority import Authority
from bus.identity.roles import ROLES
from bus.identity.server.quoting import quoted
from bus.identity.tls.files import TlsFiles

LEAF_CATCH_UP_SECONDS = 5
# Credentials name the agents of the site, and have to fit into one line of the protocol, as have
# the permissions that the bus answers with. The server's default takes those of some 15 agents.
CONTROL_LINE_BYTES = 65_536
MOST_AGENTS = 800  # a server takes 4,096 subjects from one template


def leaf_config(
    authority: Authority,
    site: str,
    hub_url: str,
    folder: Path,
    *,
    host: str,
    port: int,
) -> str:
    """Returns the whole configuration of a site's leaf node.

    Its two remotes carry the site's agents, and changed accounts: with the first alone a revoked
    agent would keep its connection to the leaf node.

    folder: where the server finds its files; those of TLS are used where they are in it now.
    """
    accounts = dict(authority.server_tokens())
    del accounts[authority.fleet.look_account]
    preloaded = [f"  {public}: {token}" for public, token in accounts.items()]
    tls = TlsFiles(folder)
    remote_tls = _remote_tls(tls)
    remotes = []
    for account, file_name in (
        (authority.fleet.account, "leaf.creds"),
        (authority.fleet.system_account, "system-leaf.creds"),
    ):
        remotes.append(
            f"    {{ url: {quoted(hub_url)}, account: {account}, "
            f"credentials: {quoted(folder / file_name)}{remote_tls} }}"
        )
    lines = [
        *_first_lines(site, host, port),
        f"operator: {authority.operator_token()}",
        f"system_account: {authority.fleet.system_account}",
        "resolver {",
        "  type: full",
        f"  dir: {quoted(folder / 'resolver')}",
        "  allow_delete: true",
        f'  interval: "{LEAF_CATCH_UP_SECONDS}s"  # until it asks for accounts that it missed',
        '  timeout: "2s"',
        "}",
        "resolver_preload {",
        *preloaded,
        "}",
        "leafnodes {",
        '  reconnect: "1s"',
        "  remotes: [",
        *remotes,
        "  ]",
        "}",
    ]
    if tls.exist:
        lines.append(tls.server_config().strip())
    return "\n".join(lines) + "\n"


def open_leaf_config(
    site: str,
    hub_url: str,
    folder: Path,
    *,
    agents: Sequence[str],
    host: str,
    port: int,
) -> str:
    """Returns the configuration of a leaf node for hosts of before identities.

    It lets in whoever connects, without TLS. The bus lets it carry what its credentials name; here
    a client may hear and say no more than those agents, and answers each question once, so that
    nobody on it sends to inboxes unasked.
    """
    may_say = [subjects.register(agent_id) for agent_id in agents]
    may_hear = []
    for agent_id in agents:
        may_hear += [
            subjects.ping(agent_id),
            subjects.look(agent_id),
            subjects.gpu_status(agent_id),
            subjects.health(agent_id),
            f"{subjects.inbox_prefix(agent_id)}.>",
            f"{subjects.earlier_inbox(agent_id)}.>",
        ]
    may_hear += [
        one for one in ROLES["agent"].subscribe if one.startswith(subjects.DISCOVERY_PREFIX)
    ]
    remote = f"url: {quoted(hub_url)}, credentials: {quoted(folder / 'leaf.creds')}"
    lines = [
        *_first_lines(site, host, port),
        "# Hosts of before identities have no credentials: whoever connects is this user.",
        "no_auth_user: before",
        "authorization {",
        "  users: [ {",
        f"    user: before, password: {quoted(secrets.token_urlsafe(24))}",
        "    permissions: {",
        f"      publish: [{', '.join(map(quoted, may_say))}]",
        f"      subscribe: [{', '.join(map(quoted, may_hear))}]",
        '      allow_responses: { max: 1, expires: "1m" }',
        "    }",
        "  } ]",
        "}",
        "leafnodes {",
        '  reconnect: "1s"',
        f"  remotes: [ {{ {remote}{_remote_tls(TlsFiles(folder))} }} ]",
        "}",
    ]
    return "\n".join(lines) + "\n"


def _first_lines(site: str, host: str, port: int) -> list[str]:
    return [
        f"# The leaf node of {site}, made by `gpuping creds leaf`.",
        f"server_name: {quoted(f'leaf-{site}')}",
        f"host: {quoted(host)}",
        f"port: {port}",
        "max_payload: 1MB",
        f"max_control_line: {CONTROL_LINE_BYTES}",
        "# a client that is frozen or cut off is noticed within 15 s",
        'ping_interval: "4s"',
        "ping_max: 2",
    ]


def _remote_tls(tls: TlsFiles) -> str:
    """Whom the leaf node believes, where the fleet has an authority of its own."""
    if not tls.authority.exists():
        return ""
    return f", tls {{ ca_file: {quoted(tls.authority)} }}"
