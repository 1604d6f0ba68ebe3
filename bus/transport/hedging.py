"""Questions that are asked once more, of every instance, when the first has not answered soon.

The server hands a question to one instance of a service. Where that one is frozen or cut off, the
server goes on handing it questions until it notices, after 15 s, and each of them would wait in
vain although others could answer. After HEDGE_SECONDS the same question is therefore published on a
second subject, which every instance hears. Only questions that change nothing are asked so.

A header names the question, so that the instance which is at work on it does not begin again.
"""

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable

import nats.errors
from msgspec import Struct
from nats.aio.msg import Msg
from nats.micro.request import ERROR_CODE_HEADER, Request

from bus.contract import subjects
from bus.transport.connection import Client
from bus.transport.micro_services import Answer, Endpoint, Handler, answering

HEDGE_SECONDS = 0.4
LONG_HEDGE_SECONDS = 3.0  # for what takes long to compute: statements and files
QUESTION_HEADER = "Gpuping-Question"
REMEMBERED_QUESTIONS = 1000

_Answering = Callable[[Request], Awaitable[None]]


class HedgedEndpoints:
    """The endpoints of one instance whose questions may come a second time.

    Serve `endpoints`, and call `listen` once those stand.
    """

    def __init__(self, client: Client, endpoints: list[Endpoint]) -> None:
        self._client = client
        self._begun: OrderedDict[str, None] = OrderedDict()
        self.endpoints = []
        for endpoint in endpoints:
            handler = self._noting(endpoint.handler)
            self.endpoints.append(endpoint._replace(handler=handler))

    async def listen(self) -> None:
        """Subscribes to the second subjects. They end with the connection."""
        for endpoint in self.endpoints:
            again = endpoint._replace(handler=self._unless_begun(endpoint.handler))
            answer = answering(again)

            async def hear(message: Msg, answer: _Answering = answer) -> None:
                await answer(Request(message))

            await self._client.subscribe(subjects.of_every_instance(endpoint.subject), cb=hear)
        await self._client.settle()

    def _noting(self, handler: Handler) -> Handler:
        async def note_and_answer(request: Request) -> Struct | bytes | Answer | None:
            question = _question_of(request)
            if question is not None:
                self._begun[question] = None
                if len(self._begun) > REMEMBERED_QUESTIONS:
                    self._begun.popitem(last=False)
            return await handler(request)

        return note_and_answer

    def _unless_begun(self, handler: Handler) -> Handler:
        async def answer(request: Request) -> Struct | bytes | Answer | None:
            if _question_of(request) in self._begun:
                return None
            return await handler(request)

        return answer


def _question_of(request: Request) -> str | None:
    return (request.headers or {}).get(QUESTION_HEADER)


async def request(
    client: Client,
    subject: str,
    data: bytes,
    timeout: float,
    hedge_seconds: float = HEDGE_SECONDS,
) -> Msg:
    """Returns the first good answer. Raises what the client's `request` raises.

    An answer to the second asking that says that the service cannot answer is no good one while the
    first asked may still answer.
    """
    headers = {QUESTION_HEADER: secrets.token_hex(8)}
    first = asyncio.create_task(client.request(subject, data, timeout=timeout, headers=headers))
    askings = {first}
    try:
        await asyncio.wait(askings, timeout=hedge_seconds)
        if first.done():
            return first.result()
        left = max(0.0, timeout - hedge_seconds)
        every = subjects.of_every_instance(subject)
        again = asyncio.create_task(client.request(every, data, timeout=left, headers=headers))
        askings.add(again)
        waiting = set(askings)
        while waiting:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if first in done and first.exception() is None:
                return first.result()
            if again in done and _is_good(again):
                return again.result()
        return first.result()
    finally:
        for asking in askings:
            asking.cancel()
        # Whoever lost has an error that nobody else fetches.
        await asyncio.gather(*askings, return_exceptions=True)


async def request_long(
    client: Client,
    subject: str,
    data: bytes,
    timeout: float,
) -> Msg:
    """The same for answers that take long to compute."""
    return await request(client, subject, data, timeout, LONG_HEDGE_SECONDS)


def _is_good(asking: asyncio.Task[Msg]) -> bool:
    error = asking.exception()
    if error is not None:
        if isinstance(error, (nats.errors.Error, TimeoutError)):
            return False
        raise error
    headers = asking.result().headers or {}
    return not headers.get(ERROR_CODE_HEADER, "").startswith("5")
