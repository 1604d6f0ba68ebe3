"""Puts back the states that a snapshot of the bucket lacks.

The server copies the bucket while it is written. A state that is replaced in the meantime may be in
the snapshot neither as it was nor as it became. The history, which is copied later, has every state
that the bucket had, so the last one is taken from there. Without it the agent's pings would be
numbered from 1 again.

Registry entries are seldom written, and the history does not have them. A backup therefore names
the agents, and one whose entry is not in the snapshot is not silently forgotten.
"""

import base64

from bus.contract import subjects
from bus.identity.signed_report import HEADER
from bus.transport import bucket, jetstream_api
from bus.transport.batch import Write, commit
from bus.transport.connection import Client
from gpuping.backup.manifest import BackupError

WRITTEN_AT_ONCE = 200


async def agent_ids(client: Client, key: str) -> set[str]:
    """Returns the agents that have such a key in the bucket; `key` ends with a wildcard."""
    return {subjects.last_token(found) for found in await bucket.keys(client, key)}


async def refill(client: Client, expected: tuple[str, ...]) -> int:
    """Writes the missing states into the restored bucket; returns how many.

    `expected` are the agents that had an entry when the backup was begun. Raises BackupError where
    one has none now.
    """
    registered = await agent_ids(client, subjects.agent_key("*"))
    lost = sorted(set(expected) - registered)
    if lost:
        raise BackupError(
            f"the entries of {len(lost)} agents are not in the backup ({', '.join(lost[:3])}): "
            "do not use this bus, and restore another backup"
        )
    stateless = sorted(registered - await agent_ids(client, subjects.state_key("*")))
    refilled = 0
    for start in range(0, len(stateless), WRITTEN_AT_ONCE):
        writes = []
        for agent_id in stateless[start : start + WRITTEN_AT_ONCE]:
            write = await _last_state(client, agent_id)
            if write is not None:
                writes.append(write)
        if writes:
            await commit(client, writes, timeout=60.0)
        refilled += len(writes)
    return refilled


async def _last_state(client: Client, agent_id: str) -> Write | None:
    """Returns the write of the agent's last outcome; None for one that was never pinged."""
    question = {"last_by_subj": subjects.HISTORY_PREFIX + agent_id}
    verb = f"STREAM.MSG.GET.{subjects.HISTORY_STREAM}"
    try:
        answer = await jetstream_api.call(client, verb, question, timeout=30.0)
    except jetstream_api.JetStreamApiError as error:
        if error.err_code == jetstream_api.ErrorCode.MESSAGE_NOT_FOUND:
            return None
        raise
    message = answer["message"]
    headers = {}
    for line in base64.b64decode(message.get("hdrs", "")).decode().split("\r\n"):
        name, _, value = line.partition(":")
        if name == HEADER:
            headers[HEADER] = value.strip()
    payload = base64.b64decode(message.get("data", ""))
    return Write(subjects.state_key(agent_id), payload, headers, expected=0)
