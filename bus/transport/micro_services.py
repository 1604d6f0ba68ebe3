"""Questions and answers over the bus: NATS micro services with typed messages.

`nats micro ls`, `info` and `stats` show every endpoint. A refusal is sent in the standard headers
of service errors with an HTTP status as its code, which `gateway/web/problems.py` passes on in a
problem document.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeVar

import msgspec
import nats.errors
import nats.micro
import structlog
from msgspec import Struct
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.micro.request import ERROR_CODE_HEADER, ERROR_HEADER, Request
from nats.micro.service import Endpoint as ServiceEndpoint
from nats.micro.service import Service

from bus.clock import boottime
from bus.contract.messages import decode, encode
from bus.errors import BadMessageError, GpupingError, RefusedError, UnavailableError
from bus.transport.connection import Client as BusClient
from bus.transport.connection import (
    forget_endpoint,
    last_endpoint,
    on_connection,
    reply_subject,
)

log = structlog.get_logger("bus.transport.micro_services")

VERSION = "0.1.0"
INSTANCE = "instance"  # in a service's metadata: what tells it from others of its name
DISCOVERY_SECONDS = 1.0
STOP_SECONDS = 1.0
T = TypeVar("T")


class Answer(NamedTuple):
    """An answer's bytes, and headers beside them."""

    data: bytes
    headers: dict[str, str]


# sends a question and returns the answer: client, subject, data, time-out in seconds
Requesting = Callable[[Any, str, bytes, float], Awaitable[Msg]]
# None instead of an answer leaves the question to another replica
Handler = Callable[[Request], Awaitable[Struct | bytes | Answer | None]]


class Endpoint(NamedTuple):
    """One subject and its handler. Concurrent handlers run as tasks, for answers that take long.

    A question goes to one instance of the service, or to each where `group` is another one in each.
    """

    name: str
    subject: str
    handler: Handler
    concurrent: bool = True
    group: str | None = None


async def serve(
    client: Client,
    name: str,
    description: str,
    endpoints: list[Endpoint],
    instance: str | None = None,
) -> Service:
    """Starts a micro service. The caller stops it with `await service.stop()`.

    `instance` is what tells it from others of that name; discovery shows it (`nats micro ls`).
    """
    service = await nats.micro.add_service(
        client,
        name=name,
        version=VERSION,
        description=description,
        metadata=None if instance is None else {INSTANCE: instance},
    )
    for endpoint in endpoints:
        await add(service, endpoint, endpoint.group)
    await client.flush()
    return service


async def stop(service: Service) -> None:
    """Ends a service. It waits STOP_SECONDS at most: its connection may be lost, or flooded."""
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await service.stop()
    except (TimeoutError, nats.errors.Error):
        log.debug("service_stop_failed")


async def discover(client: BusClient, subject: str) -> list[dict[str, Any]]:
    """Returns what the micro services say of themselves that answer within DISCOVERY_SECONDS.

    `subject` is `subjects.MICRO_PING`, or `subjects.micro_ping(name)` for those of one name.
    """
    found = []
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox)
    await client.publish(subject, reply=inbox)
    deadline = boottime() + DISCOVERY_SECONDS
    while (seconds_left := deadline - boottime()) > 0:
        try:
            message = await subscription.next_msg(timeout=seconds_left)
        except TimeoutError:
            break
        if message.data:
            found.append(msgspec.json.decode(message.data, type=dict[str, Any]))
    await subscription.unsubscribe()
    return found


async def add(
    service: Service,
    endpoint: Endpoint,
    group: str | None = None,
) -> ServiceEndpoint:
    """Adds an endpoint, in the service's queue group or in `group`. It exists after a flush."""
    await service.add_endpoint(
        name=endpoint.name,
        subject=endpoint.subject,
        handler=answering(endpoint),
        queue_group=group,
    )
    return last_endpoint(service)


async def add_elsewhere(
    service: Service,
    client: BusClient,
    endpoint: Endpoint,
) -> ServiceEndpoint:
    """Adds an endpoint that hears its questions on another connection. It exists after a flush."""
    with on_connection(service, client):
        return await add(service, endpoint)


async def remove(service: Service, endpoint: ServiceEndpoint) -> None:
    """Ends one endpoint. It waits STOP_SECONDS at most: its connection may be lost, or flooded."""
    subscription = forget_endpoint(service, endpoint)
    if subscription is None:
        return
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await subscription.unsubscribe()
    except (TimeoutError, nats.errors.Error):
        log.debug("endpoint_stop_failed")


def answering(endpoint: Endpoint) -> Callable[[Request], Awaitable[None]]:
    """Returns the callback of an endpoint: it answers, and refuses where the handler raises."""
    tasks: set[asyncio.Task[None]] = set()

    async def answer(request: Request) -> None:
        if not reply_subject(request):
            return  # a plain publish (`nats pub`) expects no answer
        try:
            reply = await endpoint.handler(request)
            if reply is None:
                return
            if isinstance(reply, Answer):
                await request.respond(reply.data, headers=reply.headers)
            elif isinstance(reply, bytes):
                await request.respond(reply)
            else:
                await request.respond(encode(reply))
        except Exception as error:  # noqa: BLE001  # one bad request must not end the service
            code, detail = _refusal(error, endpoint, request.subject)
            with contextlib.suppress(nats.errors.Error):  # the connection may be gone by now
                await request.respond_error(str(code), detail)

    async def spawn(request: Request) -> None:
        task = asyncio.create_task(answer(request))
        tasks.add(task)  # asyncio itself keeps weak references only
        task.add_done_callback(tasks.discard)

    return spawn if endpoint.concurrent else answer


def _refusal(error: Exception, endpoint: Endpoint, subject: str) -> tuple[int, str]:
    match error:
        case RefusedError():
            return error.code, error.detail
        case BadMessageError():
            log.warning(
                "request_decode_failed",
                endpoint=endpoint.name,
                subject=subject,
                detail=str(error),
            )
            return 400, _one_line(error)
        case GpupingError() | nats.errors.Error() | asyncio.TimeoutError():
            text = f"{type(error).__name__}: {error}"
            log.warning("request_failed", endpoint=endpoint.name, subject=subject, detail=text)
            return 503, _one_line(error) or "the bus did not answer in time"
        case _:
            log.error("request_crashed", endpoint=endpoint.name, subject=subject, exc_info=error)
            return 500, "an error of ours; the service's log has the details"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())  # headers hold one line


async def ask(
    client: Client,
    subject: str,
    request: Struct | None,
    reply: type[T],
    *,
    who: str,
    timeout: float = 5.0,
    requesting: Requesting | None = None,
) -> T:
    """Asks and returns the decoded answer. `who` names the service in the text of errors.

    Raises RefusedError when the service refuses, UnavailableError when nobody answers in `timeout`
    seconds, and BadMessageError when the answer cannot be decoded.
    """
    payload = b"" if request is None else encode(request)
    data = await ask_raw(client, subject, payload, who=who, timeout=timeout, requesting=requesting)
    return decode(data, reply)


async def ask_raw(
    client: Client,
    subject: str,
    data: bytes,
    *,
    who: str,
    timeout: float = 5.0,
    requesting: Requesting | None = None,
) -> bytes:
    """Asks with bytes and returns bytes; raises as `ask` does, except BadMessageError.

    `requesting` sends the question in another way than once (`hedging.request`).
    """
    if not client.is_connected:
        raise UnavailableError("the bus is not connected")
    try:
        if requesting is None:
            answer = await client.request(subject, data, timeout=timeout)
        else:
            answer = await requesting(client, subject, data, timeout)
    except nats.errors.NoRespondersError:
        raise UnavailableError(f"{who} is not on the bus") from None
    except (TimeoutError, nats.errors.TimeoutError):
        if isinstance(client, BusClient) and client.was_denied(subject):
            raise UnavailableError(
                f"the bus does not let you ask {who}: set NATS_CREDS to credentials that may "
                "(`gpuping creds`)"
            ) from None
        raise UnavailableError(f"{who} did not answer within {timeout:g} s") from None
    except nats.errors.Error as error:
        raise UnavailableError(f"the bus failed: {error}") from None
    headers = answer.headers or {}
    code = headers.get(ERROR_CODE_HEADER)
    if code:
        status = int(code) if code.isdigit() else 500
        raise RefusedError(status, headers.get(ERROR_HEADER, "refused"))
    return answer.data


async def ask_all(
    client: BusClient,
    subject: str,
    reply: type[T],
    *,
    seconds: float,
    are_all: Callable[[list[T]], bool],
) -> list[T]:
    """Asks every instance of a service, and waits at most `seconds` for their answers.

    Returns as soon as `are_all` says so of those that came. Answers that are refusals or cannot be
    read are left out.
    """
    if not client.is_connected:
        return []
    found: list[T] = []
    complete = asyncio.Event()
    inbox = client.new_inbox()

    def receive(message: Msg) -> None:
        if (message.headers or {}).get(ERROR_CODE_HEADER) or not message.data:
            return
        try:
            found.append(decode(message.data, reply))
        except BadMessageError as error:
            log.warning("answer_decode_failed", subject=subject, detail=str(error))
            return
        if are_all(found):
            complete.set()

    async with client.listening(inbox, receive):
        await client.publish(subject, b"", reply=inbox)
        try:
            async with asyncio.timeout(seconds):
                await complete.wait()
        except TimeoutError:
            log.debug("some_instances_did_not_answer", subject=subject, answered=len(found))
    return found
