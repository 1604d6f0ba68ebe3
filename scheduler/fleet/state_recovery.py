"""Finds the last valid state of an agent whose `state.<id>` was deleted or damaged by hand.

The state is read from the history stream. The standing and the numbering of pings continue from it,
and the agent's next outcome overwrites the damaged value.
"""

import structlog
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from bus.contract import subjects
from bus.contract.messages import AgentState, decode
from bus.errors import BadMessageError
from bus.transport.connection import Client

log = structlog.get_logger("scheduler.fleet.state_recovery")

PAGE = 500  # messages fetched at once
INACTIVE_SECONDS = 30


async def last_valid_state(client: Client, agent_id: str) -> AgentState | None:
    """Reads the agent's history from its beginning; returns None when it holds no valid outcome.

    Raises nats.errors.Error.
    """
    config = ConsumerConfig(
        ack_policy=AckPolicy.NONE,
        deliver_policy=DeliverPolicy.ALL,
        inactive_threshold=INACTIVE_SECONDS,
    )
    subscription = await client.jetstream().pull_subscribe(
        subjects.HISTORY_PREFIX + agent_id,
        stream=subjects.HISTORY_STREAM,
        config=config,
    )
    consumer = await subscription.consumer_info()
    unread = consumer.num_pending or 0
    state = None
    while unread > 0:
        messages = await subscription.fetch(min(unread, PAGE), timeout=5)
        unread -= len(messages)
        for message in messages:
            try:
                state = decode(message.data, AgentState)
            except BadMessageError:
                continue
    await subscription.unsubscribe()
    log.error(
        "state_recovered_from_history",
        agent_id=agent_id,
        ping_seq=None if state is None else state.ping_seq,
    )
    return state
