"""The configuration of a leaf node: the nats-server of a site, to which its hosts connect."""

from pathlib import Path

from bus.identity.authority import Authority
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
    remote_tls = ""
    if tls.authority.exists():
        remote_tls = f", tls {{ ca_file: {quoted(tls.authority)} }}"
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
        f"# The leaf node of {site}, made by `gpuping creds leaf`.",
        f"server_name: {quoted(f'leaf-{site}')}",
        f"host: {quoted(host)}",
        f"port: {port}",
        "max_payload: 1MB",
        f"max_control_line: {CONTROL_LINE_BYTES}",
        "# a client that is frozen or cut off is noticed within 15 s",
        'ping_interval: "4s"',
        "ping_max: 2",
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
