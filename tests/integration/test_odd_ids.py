"""Ids that are none, from everybody who may name one: a name in a subject, in a key, in a user.

A user named `*` would hear every agent, and a key with `.` in it would be another agent's.
"""

import contextlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import nats.errors
import pytest
from structlog.testing import capture_logs

import scheduler.service
from bus import settings
from bus.contract import subjects
from bus.contract.enrolment import (
    EnrolmentToken,
    HostKeys,
    KeepEnrolment,
    KeptHost,
    NewTokenRequest,
    RedeemRequest,
)
from bus.contract.messages import encode
from bus.errors import BadMessageError, GpupingError
from bus.identity import enrolment_token, host
from bus.identity.keys import KeyKind, SigningKey
from bus.identity.roles import RoleName
from bus.transport import bucket, connection
from gpuping.client import own_server
from gpuping.client.own_server import OwnServer
from gpuping.enrolment import service as enrolment_service
from gpuping.enrolment.service import Enrolment
from tests.identity import RoleClient, joined

GOOD = "good-1"
ID_AT = 4  # words of a subject that ends with an id
ODD_IDS = (
    *("*", ">", "", ".", "..", "a.b", "a.", ".a", "a.*", "*.b", "a*", "a>"),
    *(" ", "a b", "a\tb", "a\nb", "a\r\nb", "a\x00b", "\x7f", "\x1b[31m"),
    *("ü", "\uff41", "\u0430", "😀", "\u202ea", "a\u200bb", "x" * 64, "x" * 3000),
    *("-a", "_a", "_scheduler", "$JS", "{{name()}}", "{{tag(agent)}}", "%2e", "a/b", "../a"),
    *("register", "due-for-ping"),
)
ASKED_OF_THE_REGISTRY = (
    *("register", "enrol", "remove", "get", "expected-gpus", "expect-gpus", "labels", "bridge"),
)


class World:
    """A scheduler and the enrolment service on a server with identities."""

    def __init__(self, server: OwnServer, enrolment: Enrolment) -> None:
        self.server = server
        self.enrolment = enrolment

    def joined(self, role: RoleName) -> Any:
        path = self.server.identities.service(role)
        url = self.server.settings.nats_url
        return joined(url, f"_INBOX._{role}", user_credentials=str(path))

    async def keys(self) -> list[str]:
        chosen = self.server.settings_of("operator")
        prefix = subjects.service_inbox("operator")
        async with connection.connected(chosen, "test", inbox_prefix=prefix) as client:
            return await bucket.keys(client, f"{subjects.KEYS}>")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    chosen = settings.load({}, GPUPING_DATA_DIR=str(tmp_path))
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(own_server.running(chosen, 0))
        await stack.enter_async_context(scheduler.service.running(server.settings_of("scheduler")))
        enrolment = await stack.enter_async_context(
            enrolment_service.running(server.settings_of("enrolment"), server.identities.authority)
        )
        yield World(server, enrolment)


async def answer_to(client: RoleClient, subject: str, body: bytes = b"{}") -> str:
    """The code with which a question is refused; empty where nobody hears it, `taken` where it is.

    The server itself refuses subjects with an empty word, and nobody hears those with one more.
    """
    words = subject.split(".")
    if "" in words or len(words) > ID_AT:
        is_taken = await client.may_publish(subject)
        assert not is_taken or "" not in words
        return ""
    try:
        reply = await client.nc.request(subject, body, timeout=30)
    except nats.errors.NoRespondersError:
        return ""
    return (reply.headers or {}).get("Nats-Service-Error-Code", "taken")


def fits_a_subject(odd: str) -> bool:
    return not set(odd) & set(" \t\r\n\x00")


@pytest.mark.parametrize("role", ["operator", "gateway"])
async def test_no_id_that_is_none_is_registered_or_asked_for(world: World, role: RoleName) -> None:
    before = await world.keys()
    odd_answers = {}
    with capture_logs() as logged:
        async with world.joined(role) as client:
            for odd in filter(fits_a_subject, ODD_IDS):
                for what in ASKED_OF_THE_REGISTRY:
                    subject = f"gpuping.registry.{what}.{odd}"
                    odd_answers[subject] = await answer_to(client, subject)
                if role == "operator":
                    subject = f"gpuping.enrolment.renew.{odd}"
                    odd_answers[subject] = await answer_to(client, subject)
                subject = f"gpuping.scheduler.ping.{odd}"
                odd_answers[subject] = await answer_to(client, subject)
            assert await answer_to(client, f"gpuping.registry.enrol.{GOOD}") == "taken"
    wrong = {one: code for one, code in odd_answers.items() if code not in {"", "400", "404"}}
    assert not wrong
    assert not [entry for entry in logged if entry["event"] == "request_crashed"]
    assert set(await world.keys()) - set(before) == {
        subjects.agent_key(GOOD),
        subjects.timer_key(GOOD),
    }


async def test_no_token_and_no_host_key_is_for_an_id_that_is_none(world: World) -> None:
    reply = await world.enrolment.new_token(NewTokenRequest())
    secret = enrolment_token.parse(reply.token).secret
    login, signing = SigningKey.generate(KeyKind.USER), SigningKey.generate(KeyKind.USER)
    proof = host.make_proof(secret, login, signing)
    redeem = RedeemRequest(secret=secret, default_id=GOOD, proof=proof)
    keys = HostKeys(
        agent_id=GOOD,
        login_key=login.public,
        signing_key=signing.public,
        enrolled_at=reply.expires_at,
    )
    keep = KeepEnrolment(host=KeptHost(keys=keys, revision=0))
    before = await world.keys()
    codes: dict[tuple[str, str], str] = {}
    async with world.joined("operator") as operator, world.joined("enrolment") as enrolment:
        for odd in ODD_IDS:
            asked = msgspec.json.encode({"agent_id": odd})
            codes["new", odd] = await answer_to(operator, subjects.NEW_ENROLMENT, asked)
            for about in ({"agent_id": odd}, {"default_id": odd}):
                request = _changed(redeem, **about)
                codes[f"redeem {about}", odd] = await answer_to(operator, subjects.REDEEM, request)
            kept = encode(keep).replace(f'"{GOOD}"'.encode(), _json(odd))
            codes["host", odd] = await answer_to(enrolment, subjects.KEEP_ENROLMENT, kept)
        kept_token = EnrolmentToken(expires_at=reply.expires_at)
        for odd in ("", "*", "a" * 64 + "\n", "\n" + "a" * 64, "a" * 63 + "."):
            asked_to_keep = {"token": {"token_hash": odd, "value": kept_token, "revision": 0}}
            body = msgspec.json.encode(asked_to_keep)
            codes["token", odd] = await answer_to(enrolment, subjects.KEEP_ENROLMENT, body)
    assert not {asked: code for asked, code in codes.items() if code != "400"}
    assert await world.keys() == before
    authority = world.server.identities.authority
    for odd in ODD_IDS:
        for role, name in (("agent", odd), ("gateway", f"_{odd}")):
            with pytest.raises(BadMessageError):
                authority.mint(role, name, login.public, now=0, expires_at=None)
        with pytest.raises(BadMessageError):
            authority.mint(
                "leaf", "_site", login.public, now=0, expires_at=None, site_agents=[GOOD, odd]
            )
        with contextlib.suppress(GpupingError):
            world.server.identities.agent(odd)
            raise AssertionError(odd)


def _changed(request: RedeemRequest, **about: str) -> bytes:
    return msgspec.json.encode(msgspec.to_builtins(request) | about)


def _json(text: str) -> bytes:
    return msgspec.json.encode(text)
