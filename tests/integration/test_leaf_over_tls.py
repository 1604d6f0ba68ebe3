"""A site behind a leaf node, all of it over TLS: its host is pinged, and cut off when revoked."""

import asyncio
import subprocess
import time
from pathlib import Path

import agentd.service
import scheduler.service
from agentd.probe_selection import open_probe
from bus import settings
from bus.contract import subjects
from bus.contract.messages import AgentState
from bus.contract.questions import RegisterReply, RegisterRequest
from bus.identity.local import LocalIdentities
from bus.identity.tls import certificates
from bus.transport import account_updates, connection
from bus.transport.bucket import read
from bus.transport.embedded_server import find_binary
from bus.transport.micro_services import ask
from gpuping.client import own_server
from gpuping.commands.operate import leaf as leaf_command
from gpuping.enrolment import service as enrolment_service
from tests.ports import free_ports

HOST = "fra-1"


async def until_answered(client: connection.Client) -> AgentState:
    """The host's state once a ping was answered."""
    async with asyncio.timeout(60):
        while True:
            state = await read(client, subjects.state_key(HOST), AgentState)
            if state is not None and state.value.last.outcome == "answered":
                return state.value
            await asyncio.sleep(0.05)  # the bucket is asked, and tells nobody


async def until_listening(port: int) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                return


async def test_a_host_of_a_site_is_pinged_over_tls_and_loses_its_connection_when_revoked(
    tmp_path: Path,
) -> None:
    port, hub_port, site_port = free_ports(3)
    data = tmp_path / "data"
    identities = LocalIdentities.open_or_create(data)
    certificates.make(identities.tls_files, ["127.0.0.1", "localhost"])
    chosen = settings.load(
        {},
        GPUPING_DATA_DIR=str(data),
        NATS_HOST="0.0.0.0",  # noqa: S104  # what turns TLS on
        NATS_LEAF_PORT=hub_port,
        PING_BASE_INTERVAL_MINUTES="0.02",
        PING_MAX_INTERVAL_HOURS="0.001",
        PING_RESPONSE_TIMEOUT_SECONDS="2",
        AGENT_GPU_CHECK_INTERVAL_SECONDS="0.2",
    )
    site_folder = tmp_path / "site"
    async with own_server.running(chosen, port) as hub:
        leaf_command.leaf(
            "fra",
            hub=f"tls://127.0.0.1:{hub_port}",
            agents=HOST,
            output=site_folder,
            port=site_port,
            tls_names="127.0.0.1",
            data_dir=data,
        )
        site = subprocess.Popen(  # noqa: ASYNC220
            [str(find_binary()), "-c", str(site_folder / "leaf.conf")]
        )
        try:
            await until_listening(site_port)
            authority = hub.identities.authority
            at_site = settings.load(
                {},
                GPUPING_DATA_DIR=str(tmp_path / "host"),
                NATS_URL=f"tls://127.0.0.1:{site_port}",
                NATS_CA=str(site_folder / "ca.pem"),
                NATS_CREDS=str(hub.identities.agent(HOST)),
                AGENT_GPU_CHECK_INTERVAL_SECONDS="0.2",
            )
            async with (
                enrolment_service.running(hub.settings_of("enrolment"), authority),
                scheduler.service.running(hub.settings_of("scheduler")),
                connection.connected(
                    hub.settings_of("operator"),
                    "test",
                    inbox_prefix=subjects.service_inbox("operator"),
                ) as operator,
                agentd.service.running(
                    at_site,
                    agent_id=HOST,
                    probe=open_probe(at_site, HOST, "healthy"),
                    state_dir=tmp_path / "host",
                ) as agent,
            ):
                await ask(
                    operator,
                    subjects.enrol(HOST),
                    RegisterRequest(),
                    RegisterReply,
                    who="the scheduler",
                )
                await until_answered(operator)
                assert agent.bus_session.health().connected
                authority.revoke(
                    [user.public_key for user in authority.issued() if user.name == HOST]
                )
                revoked_at = time.monotonic()
                await account_updates.push(hub.settings, authority)
                async with asyncio.timeout(60):
                    while agent.bus_session.health().connected:  # noqa: ASYNC110
                        await asyncio.sleep(0.005)
                closed_after = time.monotonic() - revoked_at
                assert closed_after < 3.0, "the site's server heard of it by asking, or not at all"
        finally:
            site.kill()
            site.wait()
