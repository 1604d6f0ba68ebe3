"""`gpuping creds hosts`: which host signs its reports under which key."""

import asyncio
from datetime import datetime
from typing import TypeVar

from msgspec import Struct
from msgspec.structs import replace
from rich.table import Table

from bus import runner
from bus.contract import subjects
from bus.contract.enrolment import HostKeys
from bus.contract.messages import AgentEntry
from bus.identity import local
from bus.identity.local import LocalIdentities
from bus.runner import Lifecycle
from bus.settings import Settings
from bus.transport import bucket
from bus.transport.bucket import KeyValue, read
from bus.transport.connection import Client
from gpuping.client.bus_connection import connect_to_running
from gpuping.commands.command_settings import settings_of_fleet
from gpuping.commands.operate.creds import creds_app
from gpuping.commands.options import DataDir, Json, examples
from gpuping.output import terminal
from gpuping.output.json_text import print_json

S = TypeVar("S", bound=Struct)
AT_ONCE = 50  # reads of the bucket
SHOWN_HASH = 12  # characters of a token's hash, as the audit log shows it


class SigningHost(Struct, frozen=True, kw_only=True):
    """An agent and the keys of its host.

    signing_key: what its reports are verified with, as the registry has it; null where they are not
    signed. recorded_key: what the host was enrolled with last, which counts from its next
    registration on. joined_by: the beginning of its token's hash; null where an operator made its
    credentials. revoked: null where this machine does not have the authority.
    """

    agent_id: str
    signing_key: str | None = None
    recorded_key: str | None = None
    login_key: str | None = None
    since: datetime | None = None
    joined_by: str | None = None
    removed: bool = False
    revoked: bool | None = None


@creds_app.command(
    name="hosts", help_epilogue=examples("gpuping creds hosts", "gpuping creds hosts --json")
)
def list_hosts(*, data_dir: DataDir = None, json: Json = False) -> int:
    """Show which host signs its reports under which key, since when, and whose are revoked.

    Asks the running system. `gpuping verify` takes these keys for the hosts' word.
    """
    settings = settings_of_fleet(data_dir)

    async def main(_: Lifecycle) -> None:
        async with connect_to_running(settings) as client:
            found = await signing_hosts(client, _revoked_keys(settings))
        if json:
            print_json(found)
            return
        table = Table("agent", "signs with", "since", "joined by", "")
        for host in found:
            since = f"{host.since:%Y-%m-%d %H:%M}" if host.since else ""
            key = host.signing_key or host.recorded_key or "unsigned"
            table.add_row(host.agent_id, key, since, host.joined_by or "", _standing(host))
        terminal.console().print(table)

    return runner.run_command(main)


async def signing_hosts(client: Client, revoked: frozenset[str] | None) -> list[SigningHost]:
    """Every agent that is registered or has keys, in the order of their ids."""
    registered = await bucket.keys(client, subjects.agent_key("*"))
    with_keys = await bucket.keys(client, subjects.host_key("*"))
    agent_ids = {key.rpartition(".")[2] for key in (*registered, *with_keys)}
    room = asyncio.Semaphore(AT_ONCE)

    async def look(agent_id: str) -> SigningHost:
        async with room:
            entry = await read(client, subjects.agent_key(agent_id), AgentEntry)
            keys = await read(client, subjects.host_key(agent_id), HostKeys)
        return _host(agent_id, _value(entry), _value(keys), revoked)

    return list(await asyncio.gather(*(look(agent_id) for agent_id in sorted(agent_ids))))


def _value(found: KeyValue[S] | None) -> S | None:
    if found is None:
        return None
    return found.value


def _host(
    agent_id: str,
    entry: AgentEntry | None,
    keys: HostKeys | None,
    revoked: frozenset[str] | None,
) -> SigningHost:
    host = SigningHost(agent_id=agent_id)
    if entry is not None:
        removed = entry.removed_at is not None
        host = replace(host, signing_key=entry.signing_key, removed=removed)
    if keys is not None:
        host = replace(
            host,
            recorded_key=keys.signing_key,
            login_key=keys.login_key,
            since=keys.enrolled_at,
        )
        if keys.token_hash is not None:
            host = replace(host, joined_by=f"token {keys.token_hash[:SHOWN_HASH]}")
    if revoked is not None:
        host = replace(host, revoked=host.login_key in revoked)
    return host


def _standing(host: SigningHost) -> str:
    remarks = []
    if host.revoked:
        remarks.append("revoked")
    if host.removed:
        remarks.append("removed")
    if host.signing_key is None:
        remarks.append("its reports are not signed yet")
    elif host.recorded_key != host.signing_key:
        remarks.append(f"enrolled anew under {host.recorded_key}, not registered since")
    return ", ".join(remarks)


def _revoked_keys(settings: Settings) -> frozenset[str] | None:
    if not local.exist(settings.data_dir):
        return None
    return frozenset(LocalIdentities.open(settings.data_dir).authority.fleet.revoked)
