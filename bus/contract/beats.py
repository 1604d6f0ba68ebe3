"""The newest outcomes of several agents at once, for the rows of a page."""

from typing import Annotated

from msgspec import Meta

from bus.contract.messages import AgentId, Message
from bus.contract.questions import Ping

BEATS_HOURS = 24 * 60  # older outcomes are not shown in a row
MOST_AGENTS = 100
MOST_BEATS = 40


class BeatsRequest(Message, kw_only=True, frozen=True):
    """Asks for the newest `count` outcomes of each agent."""

    agent_ids: Annotated[tuple[AgentId, ...], Meta(max_length=MOST_AGENTS)]
    count: Annotated[int, Meta(ge=1, le=MOST_BEATS)] = MOST_BEATS


class BeatsReply(Message, kw_only=True, frozen=True):
    """The outcomes by agent, newest first; an agent without history is not in it.

    Of the GPUs only those are listed that were not simply up.
    """

    beats: dict[str, tuple[Ping, ...]]
