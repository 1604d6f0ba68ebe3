"""Two gateways: signing out at one, and a token that was taken away, hold at both within 2 s."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from http.cookies import SimpleCookie
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from bus.contract import subjects
from bus.identity import tokens
from bus.settings import Settings
from bus.transport.connection import Client
from gateway import service
from gateway.routes.events import PERMISSION_CHECK_SECONDS
from tests.gateway_behind import quick

EVENTS = "/ping-system/events"
PRIVATE = "/schema/openapi.json"  # answered by the gateway alone, for whoever has a token
# How often is looked decides that 2 s suffice; a busy machine needs longer for everything.
assert tokens.RECHECK_SECONDS + PERMISSION_CHECK_SECONDS <= 1.5
SECONDS = 60.0


class Pair(NamedTuple):
    first: httpx.AsyncClient
    second: httpx.AsyncClient
    secret: str
    tokens_file: Path

    async def sign_in(self) -> dict[str, str]:
        answer = await self.first.post("/login", json={"token": self.secret})
        return {"Cookie": f"gpuping_session={session_of(answer)}"}

    async def statuses(self, headers: dict[str, str]) -> tuple[int, int]:
        answers = [await http.get(PRIVATE, headers=headers) for http in (self.first, self.second)]
        return answers[0].status_code, answers[1].status_code


def session_of(answer: httpx.Response) -> str:
    return SimpleCookie(answer.headers["set-cookie"])["gpuping_session"].value


@asynccontextmanager
async def gateway(
    base: Settings, data_dir: Path, tokens_file: Path
) -> AsyncIterator[httpx.AsyncClient]:
    chosen = quick(base, GPUPING_DATA_DIR=str(data_dir), GPUPING_TOKENS_FILE=str(tokens_file))
    async with (
        service.running(chosen) as running,
        httpx.AsyncClient(base_url=running.url, timeout=20) as http,
    ):
        yield http


@pytest.fixture(params=["one data dir", "two machines"])
async def pair(
    request: pytest.FixtureRequest, base_settings: Settings, bus: Client, tmp_path: Path
) -> AsyncIterator[Pair]:
    """Gateways with one session key: in the data dir that they share, or copied to another one."""
    secret, entry = tokens.create("ada", "admin")
    _, other = tokens.create("eve", "admin")
    tokens_file = tmp_path / "tokens.toml"
    tokens_file.write_text(tokens.as_toml(entry) + tokens.as_toml(other))
    first, second = tmp_path / "first", tmp_path / "first"
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(gateway(base_settings, first, tokens_file))
        if request.param == "two machines":
            second = tmp_path / "second"
            second.mkdir(mode=0o700)
            shutil.copy(first / "gateway-session.key", second)
        beside = await stack.enter_async_context(gateway(base_settings, second, tokens_file))
        yield Pair(http, beside, secret, tokens_file)


async def until_refused_by_both(pair: Pair, headers: dict[str, str]) -> None:
    async with asyncio.timeout(SECONDS):
        while await pair.statuses(headers) != (401, 401):  # noqa: ASYNC110  # asks like a client
            await asyncio.sleep(0.05)


async def test_signing_out_holds_at_both_and_ends_live_streams(pair: Pair):
    session = await pair.sign_in()
    assert await pair.statuses(session) == (200, 200)
    async with pair.second.stream("GET", EVENTS, headers=session) as stream:
        assert stream.status_code == 200
        assert (await pair.first.post("/logout", headers=session)).status_code == 204
        await until_refused_by_both(pair, session)
        async with asyncio.timeout(SECONDS):
            async for _ in stream.aiter_bytes():
                pass
    # the same session, written in other words
    spoilt = {"Cookie": session["Cookie"] + "!"}
    assert await pair.statuses(spoilt) == (401, 401)


async def test_a_token_that_was_taken_away_is_refused_by_both(pair: Pair):
    session = await pair.sign_in()
    bearer = {"Authorization": f"Bearer {pair.secret}"}
    assert await pair.statuses(bearer) == (200, 200)
    async with pair.second.stream("GET", EVENTS, headers=bearer) as stream:
        _, other = tokens.create("eve", "admin")
        pair.tokens_file.write_text(tokens.as_toml(other))
        await until_refused_by_both(pair, bearer)
        assert await pair.statuses(session) == (401, 401)
        async with asyncio.timeout(SECONDS):
            async for _ in stream.aiter_bytes():
                pass


async def test_a_session_that_was_ended_stays_ended_after_a_restart(
    base_settings: Settings, bus: Client, tmp_path: Path
):
    secret, entry = tokens.create("ada", "admin")
    tokens_file = tmp_path / "tokens.toml"
    tokens_file.write_text(tokens.as_toml(entry))
    async with gateway(base_settings, tmp_path / "data", tokens_file) as http:
        answer = await http.post("/login", json={"token": secret})
        session = {"Cookie": f"gpuping_session={session_of(answer)}"}
        await http.post("/logout", headers=session)
    kept = (tmp_path / "data/gateway-ended-sessions").read_text()
    assert session_of(answer) not in kept
    async with gateway(base_settings, tmp_path / "data", tokens_file) as http:
        assert (await http.get(PRIVATE, headers=session)).status_code == 401


async def test_a_gateway_that_starts_later_asks_for_what_it_has_missed(
    base_settings: Settings, bus: Client, tmp_path: Path
):
    secret, entry = tokens.create("ada", "admin")
    tokens_file = tmp_path / "tokens.toml"
    tokens_file.write_text(tokens.as_toml(entry))
    async with gateway(base_settings, tmp_path / "first", tokens_file) as first:
        answer = await first.post("/login", json={"token": secret})
        session = {"Cookie": f"gpuping_session={session_of(answer)}"}
        await first.post("/logout", headers=session)
        (tmp_path / "second").mkdir(mode=0o700)
        shutil.copy(tmp_path / "first/gateway-session.key", tmp_path / "second")
        async with gateway(base_settings, tmp_path / "second", tokens_file) as second:
            pair = Pair(first, second, secret, tokens_file)
            await until_refused_by_both(pair, session)


async def test_whoever_has_no_key_ends_no_session(pair: Pair, bus: Client):
    session = await pair.sign_in()
    nonsense = [b"x", b"\xff" * 100, b"0" * 64 + b" 99999999999 " + b"0" * 32, b"\n" * 100_000]
    for body in nonsense:
        await bus.publish(subjects.SESSION_ENDED, body)
    await bus.publish(subjects.SESSION_ENDED, b"", reply="$JS.API.STREAM.DELETE.KV_gpuping")
    await bus.flush()
    assert (await pair.first.post("/logout", headers={"Cookie": "gpuping_session=x"})).is_success
    assert await pair.statuses(session) == (200, 200)
