"""`gpuping creds`: credentials are made, listed, revoked while they are in use, and rotated."""

import asyncio
import json
import stat
import time
from pathlib import Path

import nats
import nats.errors
import pytest
from system import Up, run, run_here

REFUSED = r"(?i)authorization|authentication"


class Held:
    """A connection that an agent's credentials hold, and when it was closed."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()
        self.closed_at = 0.0

    async def connect(self, up: Up, name: str, creds: Path) -> None:
        self.nc = await nats.connect(
            up.nats_url,
            user_credentials=str(creds),
            inbox_prefix=f"_INBOX.{name}",
            disconnected_cb=self._on_end,
            closed_cb=self._on_end,
            error_cb=self._on_error,
            allow_reconnect=False,
            connect_timeout=30,
        )

    async def _on_end(self) -> None:
        self.closed_at = self.closed_at or time.monotonic()
        self.closed.set()

    async def _on_error(self, _error: Exception) -> None:
        pass


def creds(up: Up, *arguments: str) -> str:
    ended = run("creds", *arguments, "--data-dir", str(up.data_dir))
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


async def test_a_revoked_agent_is_cut_off_at_once_and_others_are_not(
    fleet: Up, tmp_path: Path
) -> None:
    for agent_id in ("lost-host", "bystander"):
        creds(fleet, "agent", agent_id, "-o", str(tmp_path / f"{agent_id}.creds"))
    lost, bystander = Held(), Held()
    await lost.connect(fleet, "lost-host", tmp_path / "lost-host.creds")
    await bystander.connect(fleet, "bystander", tmp_path / "bystander.creds")

    told = await asyncio.to_thread(creds, fleet, "revoke", "lost-host")
    revoked_at = time.monotonic()
    async with asyncio.timeout(60):
        await lost.closed.wait()
    assert lost.closed_at - revoked_at < 20.0  # the server is told, and does not find out
    assert "revoked 1 credentials of lost-host" in told
    with pytest.raises(nats.errors.Error, match=REFUSED):
        await Held().connect(fleet, "lost-host", tmp_path / "lost-host.creds")
    assert not bystander.closed.is_set()
    await bystander.nc.flush()
    await bystander.nc.close()

    again = tmp_path / "again.creds"
    creds(fleet, "agent", "lost-host", "-o", str(again))
    back = Held()
    await back.connect(fleet, "lost-host", again)
    await back.nc.close()
    listed = json.loads(creds(fleet, "list", "--json"))
    standings = [user["standing"] for user in listed if user["name"] == "lost-host"]
    assert standings == ["revoked", "valid"]
    public = json.loads((fleet.data_dir / "identity/fleet.json").read_text())
    assert public["account"] in creds(fleet, "list"), "docs/verify.md says where to find it"


async def test_a_rotated_role_believes_both_keys_until_it_is_retired(
    fleet: Up, tmp_path: Path
) -> None:
    before, after = tmp_path / "before.creds", tmp_path / "after.creds"
    creds(fleet, "service", "leaf", "-o", str(tmp_path / "leaf.creds"))
    creds(fleet, "service", "gateway", "-o", str(before))
    assert "restart `gpuping up`" in creds(fleet, "rotate", "gateway")
    creds(fleet, "service", "gateway", "-o", str(after))
    for path in (before, after):
        held = Held()
        await held.connect(fleet, "_gateway", path)
        await held.nc.close()
    creds(fleet, "rotate", "gateway", "--retire")
    with pytest.raises(nats.errors.Error, match=REFUSED):
        await Held().connect(fleet, "_gateway", before)
    held = Held()
    await held.connect(fleet, "_gateway", after)
    await held.nc.close()


def test_a_rotation_is_finished_once_everybody_has_new_credentials(
    fleet: Up, tmp_path: Path
) -> None:
    def said(*words: str, code: int = 0) -> str:
        done = run_here("creds", *words, "--data-dir", str(fleet.data_dir))
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    def standings() -> list[str]:
        listed = json.loads(said("list", "--json"))
        return [user["standing"] for user in listed if user["name"] == "_bridge"]

    said("service", "bridge", "-o", str(tmp_path / "before.creds"))
    said("rotate", "bridge")
    refused = said("rotate", "bridge", "--retire", code=1)
    assert "would be shut out, with credentials that the earlier key signed: _bridge" in refused
    assert standings() == ["valid"]
    said("service", "bridge", "-o", str(tmp_path / "after.creds"))
    said("rotate", "bridge", "--retire")
    assert standings() == ["void", "valid"]
    said("rotate", "bridge")
    said("rotate", "bridge", "--retire", "--now")
    assert standings() == ["void", "void"]


def test_the_credentials_of_several_services_go_to_a_folder_that_is_made(tmp_path: Path) -> None:
    def said(*words: str, code: int = 0) -> str:
        done = run_here("creds", *words, "--data-dir", str(tmp_path / "fleet"))
        assert done.returncode == code, done.stderr
        return done.stderr

    said("init")
    folder = tmp_path / "to/creds"
    said("service", "layout", "storage", "-o", str(folder))
    assert sorted(file.name for file in folder.iterdir()) == ["layout.creds", "storage.creds"]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    file = folder / "storage.creds"
    refused = said("service", "layout", "storage", "-o", str(file), code=2)
    assert "expected a folder" in refused


def test_files_are_their_owners_alone_and_never_overwritten(fleet: Up, tmp_path: Path) -> None:
    path = tmp_path / "storage.creds"
    creds(fleet, "service", "storage", "-o", str(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = run("creds", "service", "storage", "-o", str(path), "--data-dir", str(fleet.data_dir))
    assert again.returncode == 1
    assert "not overwritten" in again.stderr
    identity = fleet.data_dir / "identity"
    assert stat.S_IMODE(identity.stat().st_mode) == 0o700
    for secret in identity.rglob("*"):
        if secret.suffix in {".seed", ".creds"}:
            assert stat.S_IMODE(secret.stat().st_mode) == 0o600, secret
    init = run("creds", "init", "--data-dir", str(fleet.data_dir))
    assert init.returncode == 1
    assert "never overwritten" in init.stderr


def test_credentials_that_others_can_read_are_refused_with_the_line_that_mends_it(
    fleet: Up, tmp_path: Path
) -> None:
    path = tmp_path / "operator.creds"
    creds(fleet, "service", "operator", "-o", str(path))
    path.chmod(0o640)
    asked = ("agents", "--data-dir", str(tmp_path))
    refused = run(*asked, NATS_URL=fleet.nats_url, NATS_CREDS=str(path))
    assert refused.returncode == 2
    assert f"chmod 600 {path}" in refused.stderr
    assert refused.stderr.count("\n") == 1
    path.chmod(0o600)
    assert run(*asked, NATS_URL=fleet.nats_url, NATS_CREDS=str(path)).returncode == 0
    nobody = run(*asked, NATS_URL=fleet.nats_url)
    assert nobody.returncode == 1
    assert "does not let you ask the scheduler" in nobody.stderr
    assert run("creds", "init", "--data-dir", str(tmp_path / "other")).returncode == 0
    made = ("creds", "service", "operator", "--data-dir", str(tmp_path / "other"))
    stranger = tmp_path / "stranger.creds"
    assert run(*made, "-o", str(stranger)).returncode == 0
    refused = run(*asked, NATS_URL=fleet.nats_url, NATS_CREDS=str(stranger))
    assert refused.returncode == 1
    assert "refuses these credentials" in refused.stderr


@pytest.mark.parametrize("verb", ["scheduler", "agentd"])
def test_a_bus_without_tls_outside_loopback_is_refused_in_one_line(
    verb: str, tmp_path: Path
) -> None:
    """Every service connects in the same way; agentd alone goes on when its bus fails."""
    refused = run(verb, "--data-dir", str(tmp_path), NATS_URL="nats://192.0.2.1:4222")
    assert refused.returncode == 2
    assert "write tls:// instead of nats://" in refused.stderr
    assert "gpuping creds init --tls-names 192.0.2.1" in refused.stderr
