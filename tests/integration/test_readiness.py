"""Readiness says who can work, and not only who answers."""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
from msgspec.structs import replace

from bus import settings
from bus.contract import subjects
from bus.contract.messages import encode
from bus.contract.questions import RegisterRequest
from bus.settings import Settings
from bus.transport import jetstream_api
from bus.transport.connection import Client
from bus.transport.micro_services import ask_raw
from gateway import service as gateway_service
from gpuping.doctor.examination import check_service, examine
from scheduler import service as scheduler_service
from storage import service as storage_service
from tests.storage_process import storage_process

_HOLD = """
import sys, duckdb
connection = duckdb.connect(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""


@contextlib.asynccontextmanager
async def gateway(chosen: Settings) -> AsyncIterator[httpx.AsyncClient]:
    with_port = settings.load(
        {}, NATS_URL=chosen.NATS_URL, GATEWAY_PORT=0, GPUPING_DATA_DIR=str(chosen.data_dir)
    )
    async with (
        gateway_service.running(with_port) as running,
        httpx.AsyncClient(base_url=running.url, timeout=20) as http,
    ):
        yield http


async def readyz(http: httpx.AsyncClient, missing: list[str]) -> dict:
    """The answer once it names these parts."""
    async with asyncio.timeout(60):
        while True:
            answer = await http.get("/readyz")
            document = answer.json()
            if document.get("missing", []) == missing:
                assert answer.status_code == (503 if missing else 200)
                return document
            await asyncio.sleep(0.05)


async def ready_metric(http: httpx.AsyncClient, name: str) -> float:
    text = (await http.get("/metrics")).text
    lines = [one for one in text.splitlines() if one.startswith("gpuping_service_ready")]
    return next(float(one.split()[-1]) for one in lines if f'service="{name}"' in one)


def names_nothing_of_the_machine(document: dict, file: Path) -> bool:
    text = str(document)
    hidden = (str(file), str(file.parent), file.name, "PID", sys.executable, "root")
    return not any(word in text for word in hidden)


async def findings(chosen: Settings) -> dict[str, str]:
    return {finding.check: finding.level for finding in await examine(chosen)}


async def test_a_history_file_that_another_process_holds(base_settings: Settings, bus: Client):
    async with scheduler_service.running(base_settings):
        async with storage_service.running(base_settings) as storage:
            file = storage.store.file
        holder = subprocess.Popen(  # noqa: ASYNC220  # it outlives this statement
            [sys.executable, "-c", _HOLD, str(file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert holder.stdout is not None
        assert await asyncio.to_thread(holder.stdout.readline) == b"held\n"
        try:
            async with storage_service.running(base_settings), gateway(base_settings) as http:
                document = await readyz(http, ["storage"])
                assert document["checks"] == {"bus": True, "scheduler": True, "storage": False}
                assert "lock" in document["reasons"]["storage"].lower()
                assert document["reasons"]["storage"] in document["detail"]
                assert names_nothing_of_the_machine(document, file)
                assert await ready_metric(http, "storage") == 0
                assert await ready_metric(http, "scheduler") == 1
                board = (await http.get("/ping-system/dashboard")).json()
                assert board["degraded"] == ["storage"]
                assert board["reasons"]["storage"] == document["reasons"]["storage"]
                (work,) = [one for one in await examine(base_settings) if one.check == "work"]
                assert work.level == "failure"
                assert str(file) in work.detail
                (health_check,) = await check_service(base_settings, "storage")
                assert health_check.level == "failure"

                holder.kill()
                holder.wait()
                await readyz(http, [])
                assert await ready_metric(http, "storage") == 1
                assert (await findings(base_settings))["work"] == "ok"
                (health_check,) = await check_service(base_settings, "storage")
                assert health_check.level == "ok"
        finally:
            holder.kill()
            holder.wait()


async def test_a_disk_that_is_full(base_settings: Settings, bus: Client):
    async with (
        scheduler_service.running(base_settings),
        storage_process(base_settings) as storage,
        gateway(base_settings) as http,
    ):
        await readyz(http, [])
        storage.allow(50_000)
        for number in range(400):
            subject = subjects.state_key(f"a-{number}")
            await bus.publish(subject, b"x" * 500)
        document = await readyz(http, ["storage"])
        assert document["reasons"]["storage"]
        storage.allow(2**40)
        await readyz(http, [])


async def test_a_bucket_that_is_gone(base_settings: Settings, bus: Client):
    async with (
        scheduler_service.running(base_settings),
        storage_service.running(base_settings),
        gateway(base_settings) as http,
    ):
        body = encode(RegisterRequest())
        await ask_raw(bus, subjects.register("a"), body, who="the scheduler")
        await readyz(http, [])
        verb = f"STREAM.DELETE.{subjects.BUCKET_STREAM}"
        await jetstream_api.call(bus, verb)
        document = await readyz(http, ["scheduler"])
        assert subjects.BUCKET in document["reasons"]["scheduler"]
        board = await http.get("/ping-system/dashboard")
        assert board.status_code == 503 or board.json()["degraded"] == ["scheduler"]
        assert await ready_metric(http, "scheduler") == 0
        assert (await findings(base_settings))["work"] == "failure"


async def test_streams_that_are_not_as_one_of_three_schedulers_is_set(
    base_settings: Settings, bus: Client
):
    """One scheduler answers for all, and the one that is set otherwise is seldom the one asked."""
    otherwise = replace(base_settings, GPUPING_REPLICAS=3)
    async with (
        scheduler_service.running(base_settings),
        scheduler_service.running(base_settings),
        scheduler_service.running(otherwise),
        storage_service.running(base_settings),
        gateway(base_settings) as http,
    ):
        async with asyncio.timeout(60):
            while not (await readyz(http, []))["remarks"]:  # noqa: ASYNC110  # it looks now and then
                await asyncio.sleep(0.1)
        for _ in range(10):
            (remark,) = (await readyz(http, []))["remarks"]
            assert "num_replicas is 1 and GPUPING_REPLICAS is 3" in remark
            assert all(
                name in remark
                for name in (subjects.BUCKET_STREAM, subjects.HISTORY_STREAM, subjects.AUDIT_STREAM)
            )
        (found,) = [one for one in await examine(otherwise) if one.check == "streams"]
        assert found.level == "warning"
        assert found.advice
        assert "start a scheduler" not in found.advice
        assert (await findings(base_settings))["work"] == "warning"
