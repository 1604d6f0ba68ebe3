"""A real nats-server that believes an authority, and clients with a role on it."""

import asyncio
import contextlib
import subprocess
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nats
from nats.aio.client import Client

from bus.clock import utc_now
from bus.contract import subjects
from bus.contract.enrolment import EnrolmentKept, HostKeys, KeepEnrolment, KeptHost
from bus.identity.authority import Authority
from bus.identity.keys import KeyKind, SigningKey
from bus.identity.roles import ROLES
from bus.identity.server.config import identity_config
from bus.identity.server.quoting import quoted
from bus.settings import Settings
from bus.transport import connection
from bus.transport.embedded_server import find_binary
from bus.transport.micro_services import ask, serve
from gpuping.client.own_server import OwnServer
from scheduler.enrolment_endpoints import EnrolmentEndpoints


class IdentityServer:
    """A running server; `process` may be killed, `start` starts it again on the same folder."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self.authority = Authority.create(folder / "authority")
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    async def start(self) -> None:
        config = self.folder / "server.conf"
        config.write_text(
            f"host: 127.0.0.1\nport: {self.port}\nlog_file: {quoted(self.folder / 'log')}\n"
            f"jetstream {{ store_dir: {quoted(self.folder / 'store')}, sync_interval: always }}\n"
            + identity_config(self.authority, self.folder / "resolver", anonymous_looks=True)
        )
        self.process = subprocess.Popen([str(find_binary()), "-c", str(config)])  # noqa: ASYNC220
        async with asyncio.timeout(60):
            while not await self._is_up():  # noqa: ASYNC110  # a server that starts can only be asked
                await asyncio.sleep(0.02)

    def kill(self) -> None:
        assert self.process
        self.process.kill()
        self.process.wait()

    async def _is_up(self) -> bool:
        assert self.process
        assert self.process.poll() is None, self.log
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        greeting = await reader.readline()
        writer.close()
        return greeting.startswith(b"INFO")


class RoleClient:
    """A connection that remembers what the server refused it."""

    def __init__(self, nc: Client, refused: list[str]) -> None:
        self.nc = nc
        self.refused = refused

    async def may_publish(self, subject: str) -> bool:
        before = len(self.refused)
        await self.nc.publish(subject, b"")
        await self.settle()
        return len(self.refused) == before

    async def may_subscribe(self, subject: str) -> bool:
        before = len(self.refused)
        subscription = await self.nc.subscribe(subject)
        await self.settle()
        is_allowed = len(self.refused) == before
        await subscription.unsubscribe()
        return is_allowed

    async def refused_to_publish(self, subjects_tried: list[str]) -> set[str]:
        """Which of these the server does not take from it."""
        before = len(self.refused)
        for subject in subjects_tried:
            await self.nc.publish(subject, b"")
        await self.settle()
        return _named(subjects_tried, "publish to", self.refused[before:])

    async def refused_to_subscribe(self, subjects_tried: list[str], at_once: int) -> set[str]:
        """Which of these the server does not let it hear. `at_once`: as its permissions allow."""
        before = len(self.refused)
        for first in range(0, len(subjects_tried), at_once):
            subscriptions = []
            for subject in subjects_tried[first : first + at_once]:
                heard_on, _, group = subject.partition(" ")
                subscriptions.append(await self.nc.subscribe(heard_on, queue=group))
            await self.settle()
            for subscription in subscriptions:
                await subscription.unsubscribe()
        return _named(subjects_tried, "subscription to", self.refused[before:])

    async def settle(self) -> None:
        """Two round trips: the server has read and answered everything sent before."""
        await self.nc._flush_pending(force_flush=True)
        await self.nc.flush()
        await self.nc.flush()


def _named(subjects_tried: list[str], what: str, refusals: list[str]) -> set[str]:
    """The subjects that the server's refusals name; nats-py gives its words in lower case."""
    named = set()
    for subject in subjects_tried:
        heard_on, _, group = subject.partition(" ")
        words = f'{what} "{heard_on}"'
        if group:
            words += f' using queue "{group}"'
        if any(text.lower().rstrip("'").endswith(words.lower()) for text in refusals):
            named.add(subject)
    return named


@contextlib.asynccontextmanager
async def joined(url: str, inbox: str, **options: Any) -> AsyncIterator[RoleClient]:
    """A connection for the length of a block, by credentials (`user_credentials=`) or anonymous."""
    refused: list[str] = []

    async def remember(error: Exception) -> None:
        refused.append(str(error))

    nc = await nats.connect(
        url,
        inbox_prefix=inbox,
        error_cb=remember,
        allow_reconnect=False,
        connect_timeout=3,
        **options,
    )
    try:
        yield RoleClient(nc, refused)
    finally:
        with contextlib.suppress(Exception):
            await nc.close()


@contextlib.asynccontextmanager
async def keeping_enrolments(settings: Settings) -> AsyncIterator[connection.Client]:
    """What of a scheduler the enrolment service needs, with a scheduler's credentials."""
    inbox_prefix = subjects.service_inbox("scheduler")
    async with connection.connected(settings, "scheduler", inbox_prefix=inbox_prefix) as client:
        endpoints = EnrolmentEndpoints(client, lambda _agent_id: None, utc_now).all()
        service = await serve(client, subjects.SCHEDULER_SERVICE, "keeps enrolments", endpoints)
        try:
            yield client
        finally:
            await service.stop()


async def keep_keys(server: OwnServer, agent_id: str) -> None:
    """Has the scheduler keep keys of a host, as the enrolment service does once it has them.

    A scheduler that wants signed reports registers no new host before that.
    """
    user = SigningKey.generate(KeyKind.USER).public
    keys = HostKeys(
        agent_id=agent_id, login_key=user, signing_key=user, enrolled_at=datetime.now(UTC)
    )
    async with connection.connected(
        server.settings_of("enrolment"),
        "enrolment",
        inbox_prefix=subjects.service_inbox("enrolment"),
    ) as client:
        request = KeepEnrolment(host=KeptHost(keys=keys, revision=0))
        await ask(client, subjects.KEEP_ENROLMENT, request, EnrolmentKept, who="the scheduler")


def matches(pattern: str, subject: str) -> bool:
    """Whether a NATS pattern allows a subject.

    One wildcard of the subject is matched by a wildcard only.
    """
    wanted = pattern.split(".")
    given = subject.split(".")
    for index, token in enumerate(wanted):
        if token == ">":
            return len(given) > index
        if index >= len(given):
            return False
        if token == "*":
            if given[index] == ">":
                return False
            continue
        if token != given[index]:
            return False
    return len(wanted) == len(given)


def any_matches(patterns: tuple[str, ...], name: str, subject: str) -> bool:
    return any(matches(pattern.replace("{{name()}}", name), subject) for pattern in patterns)


def may_hear(patterns: tuple[str, ...], name: str, subscription: str) -> bool:
    """Whether these permissions allow a subject, which may have a queue group behind it.

    A permission with a group is for that group only; one without is for all, and for none.
    """
    subject, _, group = subscription.partition(" ")
    for pattern in patterns:
        granted, _, only_group = pattern.partition(" ")
        if any_matches((granted,), name, subject) and only_group in {"", group}:
            return True
    return False


def table_subjects(own: str, other: str) -> list[str]:
    """Every subject that any role is granted, as it stands for each of two agents and for all.

    A subscription in a queue group has the group behind it.
    """
    found: dict[str, None] = {}
    for role in ROLES.values():
        for pattern in (*role.publish, *role.subscribe):
            for agent in (own, other):
                named = pattern.replace("{{name()}}", agent).replace("{{tag(agent)}}", agent)
                found[named] = None
                found[named.replace("*", agent).replace(">", agent)] = None
            for number in ("{{name()}}", "{{tag(agent)}}"):
                found[pattern.replace(number, "*")] = None
    return list(found)


def each_subject(own: str, other: str) -> Iterator[str]:
    """A subject of every kind there is on the bus."""
    for agent in (own, other, "*"):
        for what in ("ping", "look", "gpu-status", "health", "event"):
            yield f"gpuping.{what}.{agent}"
        for what in ("register", "enrol", "remove", "get", "expected-gpus", "expect-gpus"):
            yield f"gpuping.registry.{what}.{agent}"
        for key in ("agent", "state", "timer", "due", "host"):
            yield f"$KV.gpuping.{key}.{agent}"
            yield f"$JS.API.DIRECT.GET.KV_gpuping.$KV.gpuping.{key}.{agent}"
        yield f"gpuping.scheduler.ping.{agent}"
        yield f"gpuping.scheduler.alive.{agent}"
        yield f"gpuping.history.{agent}"
        yield f"gpuping.enrolment.renew.{agent}"
        yield f"_INBOX.{agent}.x"
    yield from ("gpuping.enrolment.new", "$KV.gpuping.enrolment.00ff")
    yield from ("gpuping.scheduler.make-consumer", "$KV.gpuping_alerts.position")
    for subject in ("registry.list", "scheduler.fleet", "scheduler.stats", "enrolment.redeem"):
        yield f"gpuping.{subject}"
    for subject in ("history.a", "export.a", "report.a", "uptimes", "overview", "table", "ready"):
        yield f"gpuping.storage.{subject}"
    for service in ("scheduler", "storage", "gateway", "layout", "operator", "enrolment"):
        yield f"_INBOX._{service}.x"
    for stream in ("KV_gpuping", "GPUPING_HISTORY", "GPUPING_AUDIT", "KV_gpuping_alerts", "X"):
        for verb in ("CREATE", "UPDATE", "DELETE", "PURGE", "INFO", "MSG.GET", "MSG.DELETE"):
            yield f"$JS.API.STREAM.{verb}.{stream}"
        yield f"$JS.API.STREAM.SNAPSHOT.{stream}"
        yield f"$JS.API.STREAM.RESTORE.{stream}"
        yield f"$JS.API.CONSUMER.CREATE.{stream}"
        yield f"$JS.API.CONSUMER.DURABLE.CREATE.{stream}.x"
        yield f"$JS.API.CONSUMER.MSG.NEXT.{stream}.x"
        yield f"$JS.API.DIRECT.GET.{stream}"
        yield f"$JS.API.CONSUMER.INFO.{stream}.x"
        yield f"$JS.API.CONSUMER.DELETE.{stream}.x"
        yield f"$JS.ACK.{stream}.x"
    yield from ("$JS.API.INFO", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.LIST")
    yield from ("$SYS.REQ.CLAIMS.UPDATE", "$SYS.REQ.CLAIMS.PACK", "$SYS.REQ.SERVER.PING")
    yield from ("gpuping.audit.remove", "_R_.x", "anything.else")
    yield from ("$SRV.PING", "$SRV.INFO.gpuping-agentd", "$SRV.STATS.gpuping-scheduler.x")
    yield from (">", "gpuping.>", "gpuping.ping.>", "$KV.>", "_INBOX.>", "$SYS.>")
