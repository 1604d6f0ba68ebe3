"""What the `nats` CLI shows: asked through nats-py, and by the CLI where it is installed."""

import json
import shutil
import subprocess

import nats
import pytest
from system import Up, until

AGENT = "sim-001"


async def test_an_empty_request_is_a_look(fleet: Up) -> None:
    before = fleet.agents()[AGENT]["total_pings"]
    client = await nats.connect(fleet.nats_url)
    report = json.loads((await client.request(f"gpuping.ping.{AGENT}", b"", timeout=20)).data)
    await client.close()
    assert report["agent_id"] == AGENT
    assert report["gpu_available"] is True
    assert report["schema_version"] == 1
    assert fleet.agents()[AGENT]["total_pings"] == before, "a look counts nowhere"


async def test_micro_services_can_be_discovered(fleet: Up) -> None:
    client = await nats.connect(**fleet.operator)
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox)
    await client.publish("$SRV.INFO", reply=inbox)
    infos = [json.loads((await subscription.next_msg(timeout=60)).data) for _ in range(6)]
    await client.close()
    names = sorted(info["name"] for info in infos)
    assert names == [
        "gpuping-agentd",
        "gpuping-agentd",
        "gpuping-alerts",
        "gpuping-enrolment",
        "gpuping-scheduler",
        "gpuping-storage",
    ]
    served = {endpoint["subject"] for info in infos for endpoint in info["endpoints"]}
    assert {
        f"gpuping.ping.{AGENT}",
        f"gpuping.gpu-status.{AGENT}",
        f"gpuping.health.{AGENT}",
    } <= served


async def test_the_bucket_opens_like_any_bucket(fleet: Up) -> None:
    client = await nats.connect(**fleet.operator)
    bucket = await client.jetstream().key_value("gpuping")
    state = json.loads((await bucket.get(f"state.{AGENT}")).value)
    keys = await bucket.keys()
    await client.close()
    assert state["agent_id"] == AGENT
    assert state["ping_seq"] == 1
    assert {f"agent.{AGENT}", f"state.{AGENT}", f"timer.{AGENT}"} <= set(keys)


async def test_history_is_in_its_stream(fleet: Up) -> None:
    client = await nats.connect(**fleet.operator)
    message = await client.jetstream().get_last_msg("GPUPING_HISTORY", f"gpuping.history.{AGENT}")
    await client.close()
    assert json.loads(message.data)["last"]["outcome"] == "answered"


CLI = shutil.which("nats")
LOOK = ["req", f"gpuping.ping.{AGENT}", "", "--raw"]
COMMANDS = [
    (LOOK, f'"agent_id":"{AGENT}"'),
    (["micro", "ls"], "gpuping-scheduler"),
    (["micro", "info", "gpuping-storage"], "gpuping.storage.history.*"),
    (["kv", "get", "gpuping", f"state.{AGENT}", "--raw"], '"ping_seq":1'),
    (["kv", "ls", "gpuping"], f"timer.{AGENT}"),
    (["stream", "ls"], "GPUPING_HISTORY"),
]


# In CI a skip is a failure, so that these cannot vanish unnoticed.
needs_cli = pytest.mark.skipif(CLI is None, reason="the nats CLI is not installed")


@needs_cli
@pytest.mark.parametrize(("arguments", "expected"), COMMANDS)
def test_the_nats_cli_itself(fleet: Up, tmp_path, arguments, expected) -> None:
    def ask() -> str | None:
        ended = subprocess.run(
            [str(CLI), "--context", "operator", *arguments],
            env={"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(fleet.data_dir / "identity")},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return ended.stdout if expected in ended.stdout else None

    until(ask, f"nats {' '.join(arguments)} shows {expected}")


@needs_cli
def test_without_credentials_the_cli_may_look_and_nothing_else(fleet: Up, tmp_path) -> None:
    def ask(*arguments: str, wait: str = "20s") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(CLI), "--server", fleet.nats_url, "--timeout", wait, *arguments],
            env={"HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    assert f'"agent_id":"{AGENT}"' in ask(*LOOK).stdout
    assert '"ping_seq":' in ask("kv", "get", "gpuping", f"state.{AGENT}", "--raw").stdout
    for arguments in (
        ["kv", "put", "gpuping", f"agent.{AGENT}", "x"],
        ["kv", "ls", "gpuping"],
        ["stream", "ls"],
        ["pub", f"gpuping.registry.remove.{AGENT}", "", "--reply", "_INBOX.x"],
        ["stream", "rm", "KV_gpuping", "-f"],
    ):
        refused = ask(*arguments, wait="4s")  # no answer comes to some of them
        assert "ermissions violation" in refused.stdout + refused.stderr or refused.returncode
    assert AGENT in fleet.agents()
