"""Agents behind a site's leaf node: what it carries, and that a revocation reaches it.

The hub and the leaf node are real servers. A rogue site runs a server of its own making with the
site's credentials, on which everybody may do everything.
"""

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import nats.errors
import pytest

from agentd.messaging import enrolment
from bus import settings
from bus.contract import subjects
from bus.contract.enrolment import NewTokenRequest
from bus.errors import SettingsError
from bus.identity import claims, credentials
from bus.identity.keys import KeyKind, SigningKey
from bus.identity.local import LocalIdentities
from bus.identity.roles import ROLES
from bus.identity.server import leaf
from bus.transport import account_updates
from bus.transport.embedded_server import find_binary
from gpuping.client import own_server
from gpuping.client.own_server import OwnServer
from gpuping.commands.operate import leaf as leaf_command
from gpuping.enrolment import service as enrolment_service
from tests.identity import RoleClient, each_subject, joined, keeping_enrolments, matches
from tests.ports import free_port, free_ports

HERE, ALSO_HERE, ELSEWHERE = "fra-1", "Fra-2", "ams-1"


class Site:
    """A site with two agents, and the hub."""

    def __init__(self, hub: OwnServer, hub_port: int, folder: Path) -> None:
        self.hub = hub
        self.authority = hub.identities.authority
        self.hub_url = f"nats-leaf://127.0.0.1:{hub_port}"
        self.folder = folder
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        leaf_command.leaf(
            "fra",
            hub=self.hub_url,
            agents=f"{HERE},{ALSO_HERE}",
            output=folder,
            port=self.port,
            data_dir=hub.settings.data_dir,
        )

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    async def start(self, config: Path) -> None:
        """Returns when both remotes are connected."""
        self.process = subprocess.Popen([str(find_binary()), "-c", str(config)])  # noqa: ASYNC220
        async with asyncio.timeout(60):
            while not await self._listens():  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def _listens(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.close()
        return True

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def agent(self, agent_id: str) -> Any:
        """A connection of an agent to the site's server."""
        path = self.hub.identities.authority.folder / "users" / f"agent-{agent_id}.creds"
        if not path.exists():  # what was revoked would be made anew
            self.hub.identities.agent(agent_id)
        return joined(self.url, f"_INBOX.{agent_id}", user_credentials=str(path))

    def on_hub(self, role: str) -> Any:
        path = self.hub.identities.service(role)  # type: ignore[arg-type]
        return joined(self.hub.settings.nats_url, f"_INBOX._{role}", user_credentials=str(path))

    async def revoke(self, name: str) -> None:
        keys = [user.public_key for user in self.authority.issued() if user.name == name]
        self.authority.revoke(keys)
        await account_updates.push(self.hub.settings, self.authority)


@pytest.fixture
async def site(tmp_path: Path, monkeypatch) -> AsyncIterator[Site]:
    monkeypatch.setattr(leaf, "LEAF_CATCH_UP_SECONDS", 1)
    hub_port, client_port = free_ports(2)
    chosen = settings.load({}, GPUPING_DATA_DIR=str(tmp_path / "data"), NATS_LEAF_PORT=hub_port)
    async with own_server.running(chosen, client_port) as hub:
        site = Site(hub, hub_port, tmp_path / "site")
        try:
            yield site
        finally:
            site.stop()


async def answer(client: RoleClient, subject: str) -> None:
    async def respond(message: Any) -> None:
        await message.respond(subject.encode())

    await client.nc.subscribe(subject, cb=respond)
    await client.settle()


async def asked(client: RoleClient, subject: str, within: float = 60.0) -> bytes:
    """The answer, which may take until both servers know of each other's subscriptions."""
    async with asyncio.timeout(within):
        while True:
            try:
                return bytes((await client.nc.request(subject, b"", timeout=2)).data)
            except (nats.errors.NoRespondersError, nats.errors.TimeoutError):
                await asyncio.sleep(0.02)


async def test_a_site_carries_its_own_agents_and_a_revoked_one_loses_its_connection(
    site: Site,
) -> None:
    await site.start(site.folder / "leaf.conf")
    closed = asyncio.Event()

    async def on_closed() -> None:
        closed.set()

    path = str(site.hub.identities.agent(HERE))
    async with (
        site.on_hub("scheduler") as scheduler,
        site.agent(ALSO_HERE) as second,
        site.agent(ELSEWHERE) as stranger,
        joined(
            site.url, f"_INBOX.{HERE}", user_credentials=path, disconnected_cb=on_closed
        ) as first,
    ):
        for client, agent_id in ((first, HERE), (second, ALSO_HERE), (stranger, ELSEWHERE)):
            await answer(client, subjects.ping(agent_id))
        await answer(scheduler, subjects.REGISTER_ALL)
        assert await asked(scheduler, subjects.ping(HERE))
        assert await asked(scheduler, subjects.ping(ALSO_HERE))
        assert await asked(first, subjects.register(HERE))
        with pytest.raises(nats.errors.NoRespondersError):
            await scheduler.nc.request(subjects.ping(ELSEWHERE), b"", timeout=2)
        with pytest.raises(nats.errors.NoRespondersError):
            await stranger.nc.request(subjects.register(ELSEWHERE), b"", timeout=2)

        await site.revoke(HERE)
        async with asyncio.timeout(60):
            await closed.wait()
        assert await asked(scheduler, subjects.ping(ALSO_HERE))

        # it is told of what it missed while it was away
        site.stop()
        await site.revoke(ALSO_HERE)
        await site.start(site.folder / "leaf.conf")
        async with asyncio.timeout(60):
            while await _is_let_in(site, ALSO_HERE):  # noqa: ASYNC110
                await asyncio.sleep(0.1)

        # and a site whose credentials are revoked carries nobody
        again = site.authority.issue("agent", HERE, site.folder / "again.creds")
        assert again
        async with joined(
            site.url, f"_INBOX.{HERE}", user_credentials=str(site.folder / "again.creds")
        ) as back:
            await answer(back, subjects.ping(HERE))
            assert await asked(scheduler, subjects.ping(HERE))
            await site.revoke("_fra")
            async with asyncio.timeout(60):
                while await _is_heard(scheduler, HERE):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)


async def _is_heard(client: RoleClient, agent_id: str) -> bool:
    """Whether somebody listens for the agent, as far as a request tells that may be cut off."""
    try:
        await client.nc.request(subjects.ping(agent_id), b"", timeout=1)
    except nats.errors.NoRespondersError:
        return False
    except nats.errors.TimeoutError:
        return True
    return True


async def _is_let_in(site: Site, agent_id: str) -> bool:
    try:
        async with site.agent(agent_id):
            return True
    except nats.errors.Error:
        return False


async def test_a_host_enrols_through_the_leaf_node(site: Site, tmp_path: Path) -> None:
    await site.start(site.folder / "leaf.conf")
    service_settings = site.hub.settings_of("enrolment")
    async with (
        keeping_enrolments(site.hub.settings_of("scheduler")),
        enrolment_service.running(service_settings, site.authority) as service,
    ):
        token = await service.new_token(NewTokenRequest(agent_id=HERE))
        host = settings.load({}, AGENT_ID=HERE, GPUPING_DATA_DIR=str(tmp_path / "host"))
        async with asyncio.timeout(60):
            while True:
                try:
                    enrolled = await enrolment.enroll(host, f"{token.token}@{site.url}")
                    break
                except settings.SettingsError:
                    raise
                except Exception:  # noqa: BLE001  # the two servers do not know each other yet
                    await asyncio.sleep(0.1)
    assert (enrolled.agent_id, enrolled.nats_url) == (HERE, site.url)


@pytest.mark.parametrize(
    ("changed", "advice"),
    [
        ({"host": "0.0.0.0"}, r"--host='0\.0\.0\.0': .*--tls-names"),  # noqa: S104  # refused
        ({"host": ""}, r"--host='': .*--tls-names"),
        ({"hub": "nats-leaf://bus.example:7422"}, r"--hub=.*write tls://"),
        ({"hub": "nats://10.0.0.1:7422"}, r"--hub=.*write tls://"),
    ],
)
def test_a_site_without_tls_is_for_loopback_only(
    tmp_path: Path, changed: dict[str, str], advice: str
) -> None:
    """Its server listened to whoever comes, in the clear."""
    LocalIdentities.open_or_create(tmp_path)
    asked = {"hub": "tls://bus.example:7422", "host": "127.0.0.1"} | changed
    folder = tmp_path / "site"
    with pytest.raises(SettingsError, match=advice):
        leaf_command.leaf("fra", agents=HERE, output=folder, data_dir=tmp_path, **asked)
    assert not folder.exists()


async def test_a_rogue_site_hears_and_says_what_its_agents_may_and_nothing_else(
    site: Site,
) -> None:
    """Its own server believes whoever comes; the hub believes the credentials of the site."""
    config = site.folder / "rogue.conf"
    creds = site.folder / "leaf.creds"
    config.write_text(
        f"host: 127.0.0.1\nport: {site.port}\n"
        "accounts { ROGUE { users: [ { user: a, password: a } ] } }\n"
        f'leafnodes {{ remotes: [ {{ url: "{site.hub_url}", account: ROGUE, '
        f'credentials: "{creds}" }} ] }}\n'
    )
    await site.start(config)
    role = ROLES["leaf"]
    everything = site.folder / "everything.creds"
    everything.write_text(unlimited(site))
    everything.chmod(0o600)
    hub_url = site.hub.settings.nats_url
    wrong = []
    async with (
        joined(hub_url, "_INBOX.x", user_credentials=str(everything)) as hub,
        joined(site.url, "_INBOX.x", user="a", password="a") as rogue,
    ):
        await answer(rogue, subjects.ping(HERE))
        assert await asked(hub, subjects.ping(HERE))  # the two servers know each other
        concrete = [s for s in each_subject(HERE, ELSEWHERE) if "*" not in s and ">" not in s]
        # JetStream and the server itself answer these, and their answers are no messages
        for subject in [s for s in concrete if not s.startswith(("$JS.", "$SYS.", "$KV."))]:
            granted_to_say = any(_grants(pattern, subject) for pattern in role.publish)
            if await arrives(rogue, hub, subject) != granted_to_say:
                wrong.append(f"say {subject}: expected {granted_to_say}")
            granted_to_hear = any(_grants(pattern, subject) for pattern in role.subscribe)
            if await arrives(hub, rogue, subject) != granted_to_hear:
                wrong.append(f"hear {subject}: expected {granted_to_hear}")
        for subject in ("$JS.API.STREAM.INFO.KV_gpuping", "$JS.API.STREAM.DELETE.KV_gpuping"):
            with pytest.raises((nats.errors.NoRespondersError, nats.errors.TimeoutError)):
                await rogue.nc.request(subject, b"", timeout=0.5)
        key = subjects.state_key(HERE)
        with pytest.raises((nats.errors.NoRespondersError, nats.errors.TimeoutError)):
            await rogue.nc.request(key, b"forged", timeout=0.5)
        stands = await hub.nc.request("$JS.API.STREAM.INFO.KV_gpuping", b"", timeout=5)
        assert b'"messages":0' in stands.data
    assert not wrong


def unlimited(site: Site) -> str:
    """Credentials that may do everything in the fleet's account, which no role may."""
    key = SigningKey.generate(KeyKind.USER)
    account = site.authority._seed("account")
    body = {"type": "user", "subs": -1, "data": -1, "payload": -1}
    token = claims.encode(account, key.public, "all", body, now=int(time.time()))
    return credentials.to_text(token, key)


async def arrives(sender: RoleClient, hearer: RoleClient, subject: str) -> bool:
    """Whether a message passes between the two servers. One more that must pass comes after it."""
    heard = asyncio.Event()
    last = asyncio.Event()

    async def hear(_message: Any) -> None:
        heard.set()

    async def hear_last(_message: Any) -> None:
        last.set()

    # both sides may use this inbox, so that what came before on the wire has been judged
    marker = f"_INBOX.{HERE}.last"
    subscriptions = [
        await hearer.nc.subscribe(subject, cb=hear),
        await hearer.nc.subscribe(marker, cb=hear_last),
    ]
    await hearer.settle()
    async with asyncio.timeout(60):
        while not last.is_set():
            await sender.nc.publish(subject, b"x")
            await sender.nc.publish(marker, b"x")
            await sender.settle()
            await asyncio.sleep(0.01)
    for subscription in subscriptions:
        await subscription.unsubscribe()
    await hearer.settle()
    return heard.is_set()


def _grants(pattern: str, subject: str) -> bool:
    return any(
        matches(pattern.replace("{{tag(agent)}}", agent_id), subject)
        for agent_id in (HERE, ALSO_HERE)
    )
