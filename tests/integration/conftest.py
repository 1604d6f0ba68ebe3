"""Fixtures that only tests of this folder share."""

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from bus.settings import Settings
from bus.transport import connection
from tests.agents import TestAgents, answering
from tests.browser import Browser, chromium
from tests.gateway_behind import Behind, gateway_and_behind, quick


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One tab for all tests of a file, because starting Chromium takes seconds."""
    with chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
async def agents(bus: connection.Client, config: Settings) -> AsyncIterator[TestAgents]:
    """Agents that answer; `config` is the file's own."""
    async with answering(config) as agents:
        yield agents


@pytest.fixture
def gateway_settings(base_settings: Settings) -> Settings:
    return quick(base_settings)


@pytest.fixture
async def both(gateway_settings: Settings) -> AsyncIterator[tuple[httpx.AsyncClient, Behind]]:
    """A gateway's client, and the services behind that gateway."""
    async with gateway_and_behind(gateway_settings) as pair:
        yield pair


@pytest.fixture
def http(both: tuple[httpx.AsyncClient, Behind]) -> httpx.AsyncClient:
    return both[0]


@pytest.fixture
def behind(both: tuple[httpx.AsyncClient, Behind]) -> Behind:
    return both[1]
