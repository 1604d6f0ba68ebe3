"""Finds the last valid state of an agent whose `state.<id>` was deleted or damaged by hand.

The state is read from the history stream. The standing and the numbering of pings continue from it,
and the agent's next outcome overwrites the damaged value.
"""

import base64

import structlog
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from bus.contract import subjects
from bus.contract.messages import AgentState, decode
from bus.errors import BadMessageError
from bus.transport import jetstream_api
from bus.transport.connection import Client
from bus.transport.jetstream_api import ErrorCode, JetStreamApiError

log = structlog.get_logger("scheduler.fleet.state_recovery")

PAGE = 500  # messages fetched at once
INACTIVE_SECONDS = 30


async def last_recorded_state(client: Client, agent_id: str) -> AgentState | None:
    """Returns the agent's last outcome in the history stream; None without any.

    An agent that registers and has no key in the bucket may have a history: the bucket was made
    anew. Raises BusError or nats.errors.Error.
    """
    body = {"last_by_subj": subjects.HISTORY_PREFIX + agent_id}
    try:
        answer = await jetstream_api.call(client, f"STREAM.MSG.GET.{subjects.HISTORY_STREAM}", body)
    except JetStreamApiError as error:
        if error.err_code == ErrorCode.MESSAGE_NOT_FOUND:
            return None
        raise
    try:
        return decode(base64.b64decode(answer["message"].get("data", "")), AgentState)
    except BadMessageError:
        return await last_valid_state(client, agent_id)


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
