"""Backup under load, restore elsewhere, and migration: no outcome lost, no number doubled."""

import asyncio
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from msgspec.structs import replace

from bus.client.fleet_client import FleetClient
from bus.contract import subjects
from bus.contract.messages import AgentState, LateAnswer, encode
from bus.errors import UnavailableError
from bus.settings import Settings
from bus.transport import connection, embedded_server, jetstream_api, layout
from bus.transport.batch import Write, commit
from bus.transport.bucket import read
from gpuping.backup import making, manifest, migrating, restoring
from gpuping.backup.manifest import BackupError
from gpuping.doctor import bus_checks
from tests.history import History, assert_gapless, read_history
from tests.ledger_agents import LedgerAgents, ledger_agents
from tests.nats_cluster import nats_cluster
from tests.ports import free_port
from tests.registering import register
from tests.scheduler_processes import scheduler_processes

AGENTS = 40
NAMES = [f"a{number:03d}" for number in range(AGENTS)]


def ignore(_name: str, _done: int, _total: int) -> None:
    """No progress is shown."""


@pytest.fixture
def config(base_settings: Settings) -> Settings:
    """Pings every second."""
    return replace(
        base_settings,
        PING_BASE_INTERVAL_MINUTES=1 / 60,
        PING_MAX_INTERVAL_HOURS=4 / 3600,
        PING_RESPONSE_TIMEOUT_SECONDS=4.0,
        PING_MAX_CONCURRENT_AGENTS=1000,
    )


async def enrol(bus: connection.Client, fleet: LedgerAgents) -> None:
    for name in NAMES:
        await fleet.add(name)
    for name in NAMES:
        await register(bus, name)


async def until_pinged(bus: connection.Client, holds: Callable[[History], bool]) -> History:
    async with asyncio.timeout(90):
        while True:
            history = await read_history(bus)
            if len(history) == AGENTS and holds(history):
                return history
            await asyncio.sleep(0.2)


def everyone_after(since: datetime) -> Callable[[History], bool]:
    return lambda history: all(states[-1].last.pinged_at > since for states in history.values())


def numbers(history: History) -> int:
    return sum(len(states) for states in history.values())


async def test_what_was_backed_up_under_load_goes_on_elsewhere_without_a_gap_or_a_double(
    bus: connection.Client, config: Settings, tmp_path: Path
):
    folder = tmp_path / "backup"
    async with scheduler_processes(config, 1), ledger_agents(config) as fleet:
        await enrol(bus, fleet)
        await until_pinged(bus, lambda h: all(len(states) >= 3 for states in h.values()))
        late = LateAnswer(ping_id="gone-1", heard_at=datetime.now(UTC))
        late_key = subjects.late_key(NAMES[0])
        await commit(bus, [Write(late_key, encode(late), {"Nats-TTL": "86400s"})])
        made = await making.back_up(bus, config, folder, ignore)
        before = await until_pinged(bus, everyone_after(datetime.now(UTC)))
    assert manifest.read(folder) == made
    async with embedded_server.running(tmp_path / "elsewhere", port=free_port()) as server:
        there = replace(config, NATS_URL=server.url, GPUPING_DATA_DIR=str(tmp_path / "there"))
        async with connection.connected(there, "test") as other:
            restored = await restoring.restore(other, there, folder, ignore)
            assert restored.agents == AGENTS
            restored_late = await read(other, late_key, LateAnswer)
            assert restored_late
            assert restored_late.value == late
            kept = await read_history(other)
            assert numbers(kept) == restored.outcomes
            assert_gapless(kept)
            for name in NAMES:
                assert kept[name] == before[name][: len(kept[name])]
            async with scheduler_processes(there, 1), ledger_agents(there) as fleet:
                for name in NAMES:
                    await fleet.add(name)
                after = await until_pinged(other, everyone_after(datetime.now(UTC)))
            for name in NAMES:
                assert after[name][: len(kept[name])] == kept[name]
            assert_gapless(after)
            assert await layout.inspect(other, there) == []
    print(  # noqa: T201  # with -s
        f"backed up {made.stream(subjects.HISTORY_STREAM).state['messages']} outcomes, restored "
        f"{restored.outcomes}, cut {restored.cut}; {numbers(after)} after it went on"
    )


async def test_a_state_that_the_snapshot_lacks_is_taken_from_the_history(
    bus: connection.Client, config: Settings, tmp_path: Path
):
    """The server leaves a state out of a snapshot when it is replaced while it is copied."""
    folder = tmp_path / "backup"
    async with scheduler_processes(config, 1), ledger_agents(config) as fleet:
        await enrol(bus, fleet)
        await until_pinged(bus, lambda h: all(len(states) >= 2 for states in h.values()))
    lacking = NAMES[7]
    question = {"last_by_subj": subjects.state_key(lacking)}
    verb = f"STREAM.MSG.GET.{subjects.BUCKET_STREAM}"
    found = await jetstream_api.call(bus, verb, question)
    deletion = {"seq": found["message"]["seq"]}
    await jetstream_api.call(bus, f"STREAM.MSG.DELETE.{subjects.BUCKET_STREAM}", deletion)
    made = await making.back_up(bus, config, folder, ignore)
    assert made.agents == tuple(NAMES)
    before = await read_history(bus)
    async with embedded_server.running(tmp_path / "elsewhere", port=free_port()) as server:
        there = replace(config, NATS_URL=server.url, GPUPING_DATA_DIR=str(tmp_path / "there"))
        async with connection.connected(there, "test") as other:
            restored = await restoring.restore(other, there, folder, ignore)
            assert restored.agents == AGENTS
            state = await read(other, subjects.state_key(lacking), AgentState)
            assert state
            assert state.value == before[lacking][-1]
            async with scheduler_processes(there, 1), ledger_agents(there) as fleet:
                for name in NAMES:
                    await fleet.add(name)
                after = await until_pinged(other, everyone_after(datetime.now(UTC)))
    last = before[lacking][-1].ping_seq
    assert next(s.ping_seq for s in after[lacking] if s.ping_seq > last) == last + 1


async def test_an_agent_whose_entry_is_not_in_the_backup_is_not_forgotten(
    bus: connection.Client, config: Settings, tmp_path: Path
):
    folder = tmp_path / "backup"
    async with scheduler_processes(config, 1), ledger_agents(config) as fleet:
        await enrol(bus, fleet)
    made = await making.back_up(bus, config, folder, ignore)
    manifest.write(folder, replace(made, agents=(*made.agents, "b000")))
    async with embedded_server.running(tmp_path / "elsewhere", port=free_port()) as server:
        there = replace(config, NATS_URL=server.url, GPUPING_DATA_DIR=str(tmp_path / "there"))
        async with connection.connected(there, "test") as other:
            with pytest.raises(BackupError, match=r"entries of 1 agents .*b000"):
                await restoring.restore(other, there, folder, ignore)


async def test_a_restore_is_refused_before_anything_is_changed(
    bus: connection.Client, config: Settings, tmp_path: Path
):
    folder = tmp_path / "backup"
    with pytest.raises(BackupError, match="no complete backup"):
        await restoring.restore(bus, config, folder, ignore)
    async with scheduler_processes(config, 1), ledger_agents(config) as fleet:
        await enrol(bus, fleet)
        await until_pinged(bus, lambda h: all(h.values()))
        await making.back_up(bus, config, folder, ignore)
    with pytest.raises(BackupError, match="not empty"):
        await making.back_up(bus, config, folder, ignore)
    with pytest.raises(BackupError, match="this bus is not empty"):
        await restoring.restore(bus, config, folder, ignore)
    snapshot = folder / f"{subjects.BUCKET_STREAM}.snapshot"
    content = bytearray(snapshot.read_bytes())
    content[len(content) // 2] ^= 1
    snapshot.write_bytes(content)
    with pytest.raises(BackupError, match="damaged"):
        await restoring.restore(bus, config, folder, ignore)
    async with embedded_server.running(tmp_path / "elsewhere", port=free_port()) as server:
        there = replace(config, NATS_URL=server.url)
        async with connection.connected(there, "test") as other, scheduler_processes(there, 1):
            content[len(content) // 2] ^= 1
            snapshot.write_bytes(content)
            with pytest.raises(BackupError, match="a scheduler runs"):
                await restoring.restore(other, there, folder, ignore)


@pytest.mark.parametrize(
    "where",
    [
        subjects.BUCKET_STREAM,
        pytest.param(subjects.HISTORY_STREAM, marks=pytest.mark.slow),
        pytest.param(subjects.AUDIT_STREAM, marks=pytest.mark.slow),
        pytest.param("archive", marks=pytest.mark.slow),
    ],
)
async def test_a_restore_that_was_interrupted_is_used_by_nobody_and_may_be_given_again(
    bus: connection.Client, config: Settings, tmp_path: Path, where: str
):
    """Schedulers pinged on half of a backup: without its history, or the archive of it."""
    folder = tmp_path / "backup"
    day = making.archive_folder(config) / "2026-01-01" / "pings.parquet"
    day.parent.mkdir(parents=True)
    day.write_bytes(b"of the archive")
    async with scheduler_processes(config, 1), ledger_agents(config) as fleet:
        await enrol(bus, fleet)
        await until_pinged(bus, lambda h: all(len(states) >= 2 for states in h.values()))
    await making.back_up(bus, config, folder, ignore)
    before = await read_history(bus)

    def interrupted(name: str, _done: int, _total: int) -> None:
        if name == where:
            raise InterruptedHere

    async with embedded_server.running(tmp_path / "elsewhere", port=free_port()) as server:
        there = replace(config, NATS_URL=server.url, GPUPING_DATA_DIR=str(tmp_path / "there"))
        async with connection.connected(there, "test") as other:
            with pytest.raises(InterruptedHere):
                await restoring.restore(other, there, folder, interrupted)
            if where != subjects.BUCKET_STREAM:  # which was not made yet
                with pytest.raises(UnavailableError, match="run it again"):
                    await layout.ensure(other, there)
            restored = await restored_at_last(other, there, folder)
            assert (restored.agents, restored.outcomes) == (AGENTS, numbers(before))
            assert await read_history(other) == before
            await layout.ensure(other, there)
            with pytest.raises(BackupError, match="this bus is not empty"):
                await restoring.restore(other, there, folder, ignore)
    copied = making.archive_folder(there) / "2026-01-01" / "pings.parquet"
    assert copied.read_bytes() == day.read_bytes()


async def change(bus: connection.Client, stream: str, **fields: object) -> None:
    information = await jetstream_api.call(bus, f"STREAM.INFO.{stream}")
    await jetstream_api.call(bus, f"STREAM.UPDATE.{stream}", information["config"] | fields)


@pytest.mark.slow
async def test_a_migration_that_was_interrupted_is_told(bus: connection.Client, config: Settings):
    """Pings stood still, and doctor said to make room on the disk and to start a scheduler."""
    async with scheduler_processes(config, 1), ledger_agents(config) as fleet:
        await enrol(bus, fleet)
        await until_pinged(bus, lambda h: all(h.values()))
        # as a migration leaves the streams whose first steps were taken
        await change(bus, subjects.BUCKET_STREAM, metadata={layout.MIGRATING: "now"})
        await change(bus, subjects.HISTORY_STREAM, sources=None)
        async with asyncio.timeout(90):
            while True:
                troubles = await FleetClient(bus, 5.0).troubles(5.0, for_operators=True)
                if "`gpuping bus migrate`" in (troubles["scheduler"] or ""):
                    break
                await asyncio.sleep(0.2)
        found = await bus_checks.streams(bus, config)
        assert "`gpuping bus migrate`" in found.detail
        assert found.advice == "give the same command again, with the same folder"


async def restored_at_last(
    bus: connection.Client, there: Settings, folder: Path
) -> restoring.Restored:
    """The server may still be finishing the stream of which it had all when it was interrupted."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await restoring.restore(bus, there, folder, ignore)
            except BackupError as error:
                assert "give the command again" in str(error)  # noqa: PT017  # tried again
                await asyncio.sleep(0.5)


def run_gpuping(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    program = str(Path(sys.executable).with_name("gpuping"))
    return subprocess.run(  # our own program
        (program, *arguments),
        env=os.environ | environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


async def test_a_backup_is_for_its_owner_and_its_keys_are_apart(
    bus: connection.Client, base_settings: Settings, tmp_path: Path
):
    """The mode of a folder that exists, and the umask, left the files to everybody."""
    await layout.ensure(bus, base_settings)
    identity = Path(base_settings.data_dir) / "identity" / "keys"
    identity.mkdir(parents=True)
    (identity / "operator.nk").write_text("a seed")
    (identity / "operator.nk").chmod(0o644)
    folder = tmp_path / "backup"
    folder.mkdir(mode=0o755)
    environ = {"NATS_URL": base_settings.nats_url, "GPUPING_DATA_DIR": str(base_settings.data_dir)}
    inside = await asyncio.to_thread(
        run_gpuping, "backup", str(folder), "--keys-to", str(folder / "keys"), **environ
    )
    assert (inside.returncode, list(folder.iterdir())) == (1, [])
    assert "is in the backup" in inside.stderr
    apart = tmp_path / "safe" / "keys"
    done = await asyncio.to_thread(
        run_gpuping, "backup", str(folder), "--keys-to", str(apart), **environ
    )
    assert done.returncode == 0, done.stderr
    modes = {path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert modes == {0o600}
    assert (apart / "keys").stat().st_mode & 0o777 == 0o700
    assert (apart / "keys" / "operator.nk").stat().st_mode & 0o777 == 0o600
    # before anything is copied, not after an hour
    again = tmp_path / "again"
    taken = await asyncio.to_thread(
        run_gpuping, "backup", str(again), "--keys-to", str(apart), **environ
    )
    assert (taken.returncode, again.exists()) == (1, False)


async def test_a_bus_that_is_not_there_is_told_and_not_waited_for(tmp_path: Path):
    """A nightly backup with credentials that had expired hung for ever."""
    nobody = f"nats://127.0.0.1:{free_port()}"
    asked = []
    for command in ("backup", "restore", "bus migrate --replicas 3 --copy-to"):
        words = (*command.split(), str(tmp_path / command.split()[0]))
        asked.append(asyncio.to_thread(run_gpuping, *words, NATS_URL=nobody))
    for away in await asyncio.gather(*asked):
        assert away.returncode == 1
        assert "no bus at" in away.stderr.splitlines()[-1]


async def test_a_disk_that_takes_no_more_is_one_line(
    bus: connection.Client, base_settings: Settings, tmp_path: Path
):
    await layout.ensure(bus, base_settings)
    folder = tmp_path / "backup"
    program = Path(sys.executable).with_name("gpuping")
    process = await asyncio.create_subprocess_shell(
        f"ulimit -f 0; exec {shlex.quote(str(program))} backup {shlex.quote(str(folder))}",
        env=os.environ | {"NATS_URL": base_settings.nats_url},
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        _, errors = await process.communicate()
    assert process.returncode == 1
    (line,) = errors.decode().splitlines()
    assert line.startswith(f"gpuping: {folder}: File too large: what is there now is no backup")


async def test_a_folder_that_cannot_be_written_is_one_line(
    bus: connection.Client, base_settings: Settings, tmp_path: Path
):
    await layout.ensure(bus, base_settings)
    file = tmp_path / "a file"
    file.write_text("")
    for folder in (file, file / "below"):
        refused = await asyncio.to_thread(
            run_gpuping, "backup", str(folder), NATS_URL=base_settings.nats_url
        )
        assert refused.returncode == 1
        assert refused.stderr.splitlines() == [f"gpuping: {folder}: Not a directory"]


@pytest.mark.slow  # `make drill NAME=migrate` does it under more load
@pytest.mark.timeout(300)
async def test_one_replica_becomes_three_under_load(config: Settings, tmp_path: Path):
    async with nats_cluster(tmp_path) as cluster:
        one = replace(config, NATS_URL=cluster.url, GPUPING_HISTORY_STREAM_GB=1)
        async with (
            connection.connected(one, "test") as bus,
            ledger_agents(one) as fleet,
        ):
            await layout.ensure(bus, one)
            async with scheduler_processes(one, 2):
                await enrol(bus, fleet)
                await until_pinged(bus, lambda h: all(len(states) >= 3 for states in h.values()))
                before = await read_history(bus)
                await migrating.migrate(bus, one, 3, tmp_path / "copy", ignore)
                history = await until_pinged(bus, everyone_after(datetime.now(UTC)))
            for name in (
                subjects.BUCKET_STREAM,
                subjects.HISTORY_STREAM,
                subjects.AUDIT_STREAM,
            ):
                info = await jetstream_api.call(bus, f"STREAM.INFO.{name}")
                assert info["config"]["num_replicas"] == 3, name
                assert len(info["cluster"]["replicas"]) == 2, name
            assert await layout.inspect(bus, replace(one, GPUPING_REPLICAS=3)) == []
    assert_gapless(history)
    for name in NAMES:
        assert history[name][: len(before[name])] == before[name]
        assert all(state.last.outcome != "missed" for state in history[name])
    print(f"{numbers(before)} outcomes before, {numbers(history)} after")  # noqa: T201  # with -s


class InterruptedHere(Exception):  # noqa: N818
    """Stands for whatever ends a command in the middle."""


def interrupted_after(calls: int) -> making.Progress:
    """A progress display with which the command ends at that call."""
    made = 0

    def progress(_name: str, _done: int, _total: int) -> None:
        nonlocal made
        made += 1
        if made == calls:
            raise InterruptedHere

    return progress


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("where", ["before the deletion", "on the way back"])
async def test_a_migration_that_was_interrupted_goes_on_where_it_was(
    config: Settings, tmp_path: Path, where: str
):
    """While the history is copied, and then before it is deleted or while it is made again."""
    copy = tmp_path / "copy"
    async with nats_cluster(tmp_path) as cluster:
        one = replace(config, NATS_URL=cluster.url, GPUPING_HISTORY_STREAM_GB=1)
        async with connection.connected(one, "test") as bus, ledger_agents(one) as fleet:
            await layout.ensure(bus, one)
            async with scheduler_processes(one, 1):
                await enrol(bus, fleet)
                await until_pinged(bus, lambda h: all(len(states) >= 3 for states in h.values()))
                before = await read_history(bus)
                # The copy is one chunk: told are that, its end, and the chunk on its way back.
                for calls in (2, 3):
                    with pytest.raises(InterruptedHere):
                        await migrating.migrate(bus, one, 3, copy, interrupted_after(calls))
                    with pytest.raises(UnavailableError, match="bus migrate"):
                        await layout.ensure(bus, one)
                with pytest.raises(BackupError, match="name the folder"):
                    await migrating.migrate(bus, one, 3, tmp_path / "empty", ignore)
                await put_back_as_it_was(bus, one, copy, where)
                with pytest.raises(BackupError, match="another backup"):
                    await migrate_from_another_copy(bus, one, copy, tmp_path / "other")
                await migrating.migrate(bus, one, 3, copy, ignore)
                history = await until_pinged(bus, everyone_after(datetime.now(UTC)))
            assert await layout.inspect(bus, replace(one, GPUPING_REPLICAS=3)) == []
    assert_gapless(history)
    for name in NAMES:
        assert history[name][: len(before[name])] == before[name]
    assert all(state.last.outcome != "missed" for states in history.values() for state in states)


async def put_back_as_it_was(bus: connection.Client, one: Settings, copy: Path, where: str) -> None:
    """As if the command had been interrupted after the copy and before the deletion."""
    if where != "before the deletion":
        return
    await jetstream_api.call(bus, f"STREAM.DELETE.{subjects.HISTORY_STREAM}")
    entry = manifest.read(copy).stream(subjects.HISTORY_STREAM)
    was = restoring.without_source(layout.history_config(one))
    await restoring.put(bus, copy, entry, was, ignore)


async def migrate_from_another_copy(
    bus: connection.Client, one: Settings, copy: Path, other: Path
) -> None:
    """The folder has the copy of another moment."""
    shutil.copytree(copy, other)
    found = manifest.read(other)
    history = found.stream(subjects.HISTORY_STREAM)
    changed = replace(history, state=history.state | {"last_seq": 0})
    manifest.write(other, replace(found, streams=(changed,)))
    await migrating.migrate(bus, one, 3, other, ignore)
