"""A cluster of three without identities goes to one with them by backup and restore, and back."""

from pathlib import Path

import msgspec
import pytest

import agentd.service
import scheduler.service
from agentd.probe_selection import open_probe
from bus import settings
from bus.contract import subjects
from bus.identity.local import LocalIdentities
from bus.identity.server.config import identity_config
from bus.settings import Settings
from bus.transport import jetstream_api, layout
from bus.transport.connection import connected
from gpuping.backup import making, restoring
from gpuping.enrolment import service as enrolment_service
from tests.integration.test_identities_upgrade import QUICK, answered_after
from tests.nats_cluster import SIZE, nats_cluster
from tests.ports import free_ports


def ignore(*_: object) -> None:
    """Progress of a backup or a restore."""


@pytest.mark.slow
async def test_three_servers_get_identities_by_backup_and_restore_and_may_go_back(
    tmp_path: Path,
) -> None:
    """The host has its credentials before, and never notices more than a pause."""
    ports = free_ports(2 * SIZE)
    identities = LocalIdentities.open_or_create(tmp_path / "data")
    authority = identities.authority
    url = ",".join(f"nats://127.0.0.1:{port}" for port in ports[:SIZE])
    chosen = settings.load(
        {},
        GPUPING_DATA_DIR=str(tmp_path / "data"),
        NATS_URL=url,
        GPUPING_REPLICAS=3,
        GPUPING_REQUIRE_SIGNED="false",
        **QUICK,
    )
    for folder in ("before", "with", "backup"):
        (tmp_path / folder).mkdir()

    def of(role: str) -> Settings:
        return msgspec.structs.replace(chosen, NATS_CREDS=str(identities.service(role)))

    def more(number: int) -> str:
        resolver = tmp_path / f"resolver-{number}"
        return identity_config(authority, resolver, anonymous_looks=False)

    of_host = msgspec.structs.replace(chosen, NATS_CREDS=str(identities.agent("gpu-1")))
    probe = open_probe(of_host, "gpu-1", "healthy")
    async with agentd.service.running(
        of_host, agent_id="gpu-1", probe=probe, state_dir=tmp_path / "gpu-1"
    ):
        async with (
            nats_cluster(tmp_path / "before", ports),
            connected(chosen, "test") as client,
        ):
            await layout.ensure(client, chosen, grow=True)
            async with scheduler.service.running(chosen):
                before = await answered_after(client, 1)
            made = await making.back_up(client, chosen, tmp_path / "backup" / "1", ignore)
        kept = made.stream(subjects.HISTORY_STREAM).state["messages"]
        async with nats_cluster(
            tmp_path / "with", ports, more, credentials=identities.service("layout")
        ):
            async with connected(
                of("layout"), "layout", inbox_prefix="_INBOX._layout"
            ) as as_layout:
                restored = await restoring.restore(
                    as_layout, of("layout"), tmp_path / "backup" / "1", ignore
                )
                info = await jetstream_api.call(as_layout, f"STREAM.INFO.{subjects.HISTORY_STREAM}")
                assert info["config"]["num_replicas"] == 3
            assert restored.outcomes + restored.cut == kept
            async with (
                enrolment_service.running(of("enrolment"), authority),
                scheduler.service.running(of("scheduler")),
                connected(of("operator"), "test", inbox_prefix="_INBOX._operator") as operator,
            ):
                after = await answered_after(operator, before.ping_seq, is_signed=True)
        assert after.ping_seq > before.ping_seq
        # back: the earlier cluster was not touched
        async with (
            nats_cluster(tmp_path / "before", ports),
            connected(chosen, "test") as client,
            scheduler.service.running(chosen),
        ):
            back = await answered_after(client, before.ping_seq)
    assert back.ping_seq > before.ping_seq
