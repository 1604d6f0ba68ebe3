"""Asks the scheduler for a consumer of a stream, for services that may not make one themselves.

Whoever may make a consumer may have JetStream send a stream's messages to any subject, for ever, a
key of the bucket included. The scheduler writes the bucket anyway; the others get consumers that
send nothing until they are asked.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from bus.contract import subjects
from bus.contract.messages import Message

Nanoseconds = Annotated[int, Meta(ge=0, le=86_400 * 1_000_000_000)]
Name = Annotated[str, Meta(pattern=subjects.AGENT_ID_PATTERN)]


class ConsumerConfig(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """JetStream's own fields, and no more of them than readers need."""

    durable_name: Name | None = None
    filter_subject: str | None = None
    deliver_policy: Literal["all", "last_per_subject", "by_start_sequence", "by_start_time"] = "all"
    opt_start_seq: Annotated[int, Meta(ge=1)] | None = None
    opt_start_time: str | None = None
    ack_policy: Literal["none", "all"] = "none"
    ack_wait: Nanoseconds | None = None
    max_ack_pending: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    inactive_threshold: Nanoseconds | None = None
    mem_storage: bool = False
    num_replicas: Annotated[int, Meta(ge=0, le=5)] | None = None


class ConsumerRequest(Message, kw_only=True, frozen=True):
    """Asks for a consumer. One of the same durable name is replaced."""

    stream: str
    config: ConsumerConfig


class ConsumerMade(Message, kw_only=True, frozen=True):
    """The consumer's name, and how many messages it has to deliver now."""

    name: str
    num_pending: int
