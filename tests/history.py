"""An independent reader of GPUPING_HISTORY: what the stream says, with nothing of ours in between
but the decoder.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable

import nats.errors
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from bus.contract import subjects
from bus.contract.messages import AgentState, decode
from bus.transport import connection

History = dict[str, list[AgentState]]


async def read_history(client: connection.Client) -> History:
    """Every revision in the stream, by agent, in order."""
    js = client.jetstream()
    config = ConsumerConfig(
        ack_policy=AckPolicy.NONE, deliver_policy=DeliverPolicy.ALL, inactive_threshold=30
    )
    subscription = await js.pull_subscribe(
        f"{subjects.HISTORY_PREFIX}*", stream=subjects.HISTORY_STREAM, config=config
    )
    history: History = defaultdict(list)
    left = (await subscription.consumer_info()).num_pending or 0
    while left > 0:
        try:
            messages = await subscription.fetch(min(left, 500), timeout=5)
        except nats.errors.TimeoutError:
            break
        left -= len(messages)
        for message in messages:
            history[message.subject.rpartition(".")[2]].append(decode(message.data, AgentState))
    await subscription.unsubscribe()
    return history


async def until_history(
    client: connection.Client, holds: Callable[[History], bool], *, within: float = 90.0
) -> History:
    """The history as soon as it is as wanted; AssertionError when time is up."""
    deadline = asyncio.get_running_loop().time() + within
    while True:
        history = await read_history(client)
        if holds(history):
            return history
        if asyncio.get_running_loop().time() > deadline:
            found = {
                agent: [(s.ping_seq, s.last.outcome, s.last.reason) for s in rows]
                for agent, rows in history.items()
            }
            raise AssertionError(f"not within {within} s; history is {found}")
        await asyncio.sleep(0.05)


def assert_gapless(history: History) -> None:
    """Each agent's outcomes count 1, 2, 3 ... without gaps or doubles."""
    for agent_id, states in history.items():
        assert [state.ping_seq for state in states] == list(range(1, len(states) + 1)), agent_id
        assert len({state.last.ping_id for state in states}) == len(states), agent_id
