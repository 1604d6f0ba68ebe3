"""The server-sent events of a gateway, parsed."""

import asyncio

import httpx


class EventStream:
    """The events of one response, in their order."""

    def __init__(self, response: httpx.Response) -> None:
        self._lines = response.aiter_lines()

    async def next(self, kind: str | None = None) -> dict[str, str]:
        """The fields of the next event of a kind; without one, of any but `health`.

        Others are passed over. EOFError at the end of the stream.
        """
        fields: dict[str, str] = {}
        async with asyncio.timeout(60):
            async for line in self._lines:
                if not line and "data" in fields:
                    if fields["event"] == kind or (kind is None and fields["event"] != "health"):
                        return fields
                    fields = {}
                    continue
                name, _, value = line.partition(": ")
                if name:
                    fields[name] = value
        raise EOFError
