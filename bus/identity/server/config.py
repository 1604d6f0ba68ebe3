"""The part of a nats-server's configuration that makes it believe one authority and nobody else."""

import re
from pathlib import Path

from bus.identity import claims
from bus.identity.authority import Authority
from bus.identity.server.quoting import quoted

_PRELOADED = re.compile(r"^  (A[A-Z2-7]{55}): (\S+)$", re.MULTILINE)


def identity_config(
    authority: Authority,
    resolver_dir: Path,
    *,
    anonymous_looks: bool,
) -> str:
    """Returns configuration lines.

    Operator, system account, accounts, and how anonymous clients are treated.

    resolver_dir: where the server keeps accounts as they were last pushed to it; what is there wins
        over the preloaded ones, so that a revocation outlives a restart.
    anonymous_looks: lets whoever connects without credentials, from loopback, look at agents.
    """
    preloaded = []
    for public, token in authority.server_tokens().items():
        preloaded.append(f"  {public}: {token}")
    lines = [
        f"operator: {authority.operator_token()}",
        f"system_account: {authority.fleet.system_account}",
        "resolver {",
        "  type: full",
        f"  dir: {quoted(resolver_dir)}",
        "  allow_delete: true",
        '  interval: "2m"',
        '  timeout: "2s"',
        "}",
        "resolver_preload {",
        *preloaded,
        "}",
    ]
    if anonymous_looks:
        lines.append(f"default_sentinel: {authority.anonymous_token()}")
    return "\n".join(lines) + "\n"


def is_current(authority: Authority, config: str) -> bool:
    """Whether a configuration has the accounts as they would be made now, but for their time."""
    preloaded = dict(_PRELOADED.findall(config))
    for public, token in authority.server_tokens().items():
        before = preloaded.get(public)
        if before is None or claims.decode(before).nats != claims.decode(token).nats:
            return False
    return True
