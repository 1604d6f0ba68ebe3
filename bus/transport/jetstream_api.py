"""Calls of the JetStream API, and its refusals as one typed error.

nats-py has exceptions of its own for some of the API; it knows neither all the fields that gpuping
sets on streams and consumers, nor the codes of atomic batches.
"""

import base64
import contextlib
import json
from enum import IntEnum
from typing import Any

import nats.errors
from nats.aio.client import Client

from bus.contract import subjects
from bus.errors import BusError, UnavailableError

JsonObject = dict[str, Any]


class ErrorCode(IntEnum):
    """The `err_code` of JetStream's refusals that gpuping tells apart or documents.

    Source: `server/errors.json` of nats-server 2.15.
    """

    NO_SUITABLE_PEERS = 10005  # fewer servers than replicas, or some that are away
    TEMPORARILY_UNAVAILABLE = 10008  # a cluster without a leader
    CONSUMER_STORE_FAILED = 10012  # no descriptor, or no room on the server's disk
    CONSUMER_NOT_FOUND = 10014
    INSUFFICIENT_RESOURCES = 10023
    MESSAGE_NOT_FOUND = 10037
    STORAGE_EXCEEDED = 10047  # no room is left on the server's disk
    STREAM_CONFIG_INVALID = 10052
    STREAM_NAME_IN_USE = 10058  # by one with another configuration
    STREAM_NOT_FOUND = 10059
    WRONG_LAST_SEQUENCE = 10071  # a compare-and-set lost; the server does not name the subject
    WRONG_LAST_SEQUENCE_CONSTANT = 10164  # in a batch: a subject stands in it twice


# What to do about refusals that an operator can do something about. The others are told apart in
# code, or mean that somebody else changed the layout.
ADVICE: dict[int, str] = {
    10002: "give the account more storage, or free some (`nats account info`)",
    10005: "start the servers that are missing, or ask for fewer replicas (GPUPING_REPLICAS)",
    10008: "wait until the cluster has a leader, or start the servers that are missing",
    10012: "raise the limit of open files of the nats-server, or make room on its disk",
    10023: "the server has no memory or disk left: free some, or raise its limits of storage",
    10026: "raise the account's limit of consumers (`nats account info`)",
    10027: "raise the account's limit of streams (`nats account info`)",
    10028: "raise jetstream { max_memory_store }",
    10039: "enable JetStream for this account: accounts { ... jetstream: enabled }",
    10047: (
        "make room on the disk of the nats-server, raise jetstream { max_file_store }, "
        "or set GPUPING_HISTORY_STREAM_GB lower"
    ),
    10052: "update nats-server to 2.12 or newer, or see deploy/nats.conf",
    10059: "start a scheduler or `gpuping up`, which makes the streams",
    10074: "GPUPING_REPLICAS needs as many servers in the cluster",
    10076: "start nats-server with -js, or set jetstream {} as in deploy/nats.conf",
}
# The server can do it once it has a leader, descriptors or room again.
_PASSING = frozenset({ErrorCode.TEMPORARILY_UNAVAILABLE, ErrorCode.CONSUMER_STORE_FAILED})
_OTHER_ADVICE = "see the log of the nats-server"


class JetStreamApiError(BusError):
    """JetStream answered a call and refused it. The text says what to do about it.

    `code` is the class of the error in the manner of HTTP, `err_code` tells the errors apart
    (`ErrorCode` has those that matter here; others occur), `description` is the server's sentence.
    """

    def __init__(
        self,
        code: int,
        err_code: int,
        description: str,
    ) -> None:
        advice = ADVICE.get(err_code, _OTHER_ADVICE)
        super().__init__(f"{description} [{err_code}]: {advice}")
        self.code = code
        self.err_code = err_code
        self.description = description

    @property
    def is_not_found(self) -> bool:
        """The stream or the consumer that the call names does not exist."""
        return self.err_code in {ErrorCode.STREAM_NOT_FOUND, ErrorCode.CONSUMER_NOT_FOUND}


# In a cluster that has just started, the servers do not know of one another yet.
_PEER_AWAY = "peer offline"
# The whole sentence where no server that is known was left out for a reason.
_TOO_FEW_PEERS = "no suitable peers for placement"


class NotAvailableError(JetStreamApiError, UnavailableError):
    """The server cannot do it now, and may be able to soon."""


class TooFewServersError(NotAvailableError):
    """The cluster knows of fewer servers than replicas: the others are not there yet, or never."""


class NotEnabledError(UnavailableError):
    """Nobody listens to the API: the server has no JetStream, or has not started it yet."""


async def call(
    client: Client,
    verb: str,
    body: JsonObject | None = None,
    timeout: float = 5.0,
) -> JsonObject:
    """One call, such as `STREAM.INFO.<stream>`. Returns the answer as it came.

    Raises JetStreamApiError when the server refuses it, UnavailableError when nobody answers.
    """
    payload = json.dumps(body or {}).encode()
    try:
        reply = await client.request(subjects.jetstream_api(verb), payload, timeout=timeout)
    except nats.errors.NoRespondersError:
        raise NotEnabledError(
            "JetStream is not enabled on this server: start it with -js, or set jetstream {}"
        ) from None
    except (TimeoutError, nats.errors.Error) as error:
        raise UnavailableError(f"JetStream did not answer {verb}: {type(error).__name__}") from None
    return answer_of(reply.data)


async def message(
    client: Client,
    stream: str,
    sequence: int,
) -> bytes:
    """The data of one message of a stream. Raises JetStreamApiError where there is none."""
    answer = await call(client, f"STREAM.MSG.GET.{stream}", {"seq": sequence})
    return base64.b64decode(answer["message"].get("data", ""))


async def delete_consumer(
    client: Client,
    stream: str,
    name: str,
) -> None:
    """Deletes a consumer, if it exists. Raises UnavailableError."""
    with contextlib.suppress(JetStreamApiError):
        await call(client, f"CONSUMER.DELETE.{stream}.{name}")


def answer_of(data: bytes) -> JsonObject:
    """Decodes an answer of the API or to a publication. Raises JetStreamApiError for a refusal."""
    try:
        answer: JsonObject = json.loads(data)
    except ValueError:
        raise UnavailableError("the answer of JetStream cannot be decoded") from None
    error = answer.get("error")
    if not error:
        return answer
    code = error.get("code", 500)
    err_code = error.get("err_code", 0)
    description = error.get("description", "refused")
    is_away = err_code == ErrorCode.NO_SUITABLE_PEERS and _PEER_AWAY in description
    if err_code in _PASSING or is_away:
        raise NotAvailableError(code, err_code, description)
    if err_code == ErrorCode.NO_SUITABLE_PEERS and description == _TOO_FEW_PEERS:
        raise TooFewServersError(code, err_code, description)
    raise JetStreamApiError(code, err_code, description)
