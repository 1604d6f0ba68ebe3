"""The state of an agent whose `state.<id>` was deleted or ruined by hand: its last good revision in history.

The standing and the numbering go on from there, and the next outcome overwrites what was ruined.
"""

import structlog
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from bus.contract import subjects
from bus.contract.messages import AgentState, decode
from bus.errors import BadMessageError
from bus.transport.connection import Client

log = structlog.get_logger("scheduler.fleet.state_recovery")

PAGE = 500
INACTIVE_SECONDS = 30


async def last_good_state(client: Client, agent_id: str) -> AgentState | None:
    """Reads the agent's history from its beginning; None when there is no outcome in it. Raises nats.errors.Error."""
    config = ConsumerConfig(
        ack_policy=AckPolicy.NONE,
        deliver_policy=DeliverPolicy.ALL,
        inactive_threshold=INACTIVE_SECONDS,
    )
    reading = await client.jetstream().pull_subscribe(
        subjects.HISTORY_PREFIX + agent_id, stream=subjects.HISTORY_STREAM, config=config
    )
    state, left = None, (await reading.consumer_info()).num_pending or 0
    while left > 0:
        messages = await reading.fetch(min(left, PAGE), timeout=5)
        left -= len(messages)
        for message in messages:
            try:
                state = decode(message.data, AgentState)
            except BadMessageError:
                continue
    await reading.unsubscribe()
    log.error(
        "state_rescued_from_history", agent_id=agent_id, ping_seq=state.ping_seq if state else None
    )
    return state
