"""`gpuping creds hosts`: which host signs its reports under which key."""

import asyncio
from datetime import datetime

from msgspec import Struct
from rich.table import Table

from bus import runner
from bus.contract import subjects
from bus.contract.enrolment import HostKeys
from bus.contract.messages import AgentEntry
from bus.identity import local
from bus.identity.local import LocalIdentities
from bus.runner import Lifecycle
from bus.settings import Settings
from bus.transport import jetstream_api
from bus.transport.bucket import read
from bus.transport.connection import Client
from gpuping.client.bus_connection import connect_to_running
from gpuping.commands.command_settings import load_settings
from gpuping.commands.operate.creds import creds_app
from gpuping.commands.options import DataDir, Json, examples
from gpuping.output import terminal
from gpuping.output.json_text import print_json

AT_ONCE = 50  # reads of the bucket


class SigningHost(Struct, frozen=True, kw_only=True):
    """An agent and the keys of its host.

    signing_key: what its reports are verified with, as the registry has it; null where they are not
    signed. recorded_key: what the host was enrolled with last, which counts from its next
    registration on. joined_by: the beginning of its token's hash; null where an operator made its
    credentials. revoked: null where this machine does not have the authority.
    """

    agent_id: str
    signing_key: str | None
    recorded_key: str | None
    login_key: str | None
    since: datetime | None
    joined_by: str | None
    removed: bool
    revoked: bool | None


@creds_app.command(
    name="hosts", help_epilogue=examples("gpuping creds hosts", "gpuping creds hosts --json")
)
def list_hosts(*, data_dir: DataDir = None, json: Json = False) -> int:
    """Show which host signs its reports under which key, since when, and whose are revoked.

    Asks the running system. `gpuping verify` takes these keys for the hosts' word.
    """
    settings = load_settings(default_log_level="warning", GPUPING_DATA_DIR=data_dir)

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
    verb = f"STREAM.INFO.{subjects.BUCKET_STREAM}"
    agent_ids = set()
    for filtered in (subjects.agent_key("*"), subjects.host_key("*")):
        offset = 0
        while True:
            asked = {"subjects_filter": filtered, "offset": offset}
            info = await jetstream_api.call(client, verb, asked, timeout=30.0)
            page = info["state"].get("subjects") or {}
            agent_ids |= {subject.rpartition(".")[2] for subject in page}
            offset += len(page)
            if not page or offset >= info.get("total", 0):
                break
    room = asyncio.Semaphore(AT_ONCE)

    async def look(agent_id: str) -> SigningHost:
        async with room:
            entry = await read(client, subjects.agent_key(agent_id), AgentEntry)
            keys = await read(client, subjects.host_key(agent_id), HostKeys)
        return _host(
            agent_id,
            entry.value if entry is not None else None,
            keys.value if keys is not None else None,
            revoked,
        )

    return list(await asyncio.gather(*(look(agent_id) for agent_id in sorted(agent_ids))))


def _host(
    agent_id: str,
    entry: AgentEntry | None,
    keys: HostKeys | None,
    revoked: frozenset[str] | None,
) -> SigningHost:
    login_key = keys.login_key if keys is not None else None
    is_revoked = None
    if revoked is not None:
        is_revoked = login_key in revoked
    joined_by = None
    if keys is not None and keys.token_hash is not None:
        joined_by = f"token {keys.token_hash[:12]}"
    return SigningHost(
        agent_id=agent_id,
        signing_key=entry.signing_key if entry is not None else None,
        recorded_key=keys.signing_key if keys is not None else None,
        login_key=login_key,
        since=keys.enrolled_at if keys is not None else None,
        joined_by=joined_by,
        removed=entry is not None and entry.removed_at is not None,
        revoked=is_revoked,
    )


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
