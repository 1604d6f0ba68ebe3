"""Metric families as the text that Prometheus scrapes, with the figures of this process."""

from collections.abc import Iterable, Iterator
from http import HTTPStatus
from typing import NamedTuple

from prometheus_client import ProcessCollector
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from bus.monitoring.http_server import Headers, Response

# Memory, CPU time, file descriptors and start time of this process, by the names of the field.
_PROCESS = ProcessCollector(registry=None)


class Exposition(NamedTuple):
    """An answer to a scrape."""

    text: bytes
    content_type: str


class _Families(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        yield from self._families
        yield from _PROCESS.collect()


def exposition(families: Iterable[Metric], accept: str) -> Exposition:
    """The families and the process's own, in the format that the scraper accepts."""
    encode, content_type = choose_encoder(accept)
    return Exposition(encode(_Families(families)), content_type)


def response(families: Iterable[Metric], headers: Headers) -> Response:
    """The same as a response of the small HTTP server."""
    shown = exposition(families, headers.get("accept", ""))
    content_type = f"Content-Type: {shown.content_type}"
    return Response(HTTPStatus.OK, shown.text, (content_type,))
