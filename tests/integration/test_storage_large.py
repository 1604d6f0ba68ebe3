"""Answers that are more than a message of the bus: pages end early, statements and replays come as
files.
"""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import httpx
import msgspec
import pytest
from msgspec import Raw
from msgspec.structs import replace

import gateway.service
import scheduler.service
from bus.client.fleet_client import FleetClient
from bus.clock import utc_now
from bus.contract import subjects
from bus.contract.messages import AgentState, Enrolment, Incident, Seconds, encode
from bus.contract.questions import (
    HistoryReply,
    HistoryRequest,
    OverviewReply,
    OverviewRequest,
    ping_of,
)
from bus.contract.statements import FleetReplay, FleetReplayRequest, Statement, StatementRequest
from bus.errors import RefusedError
from bus.settings import Settings
from bus.transport import large_answers, micro_services
from bus.transport.connection import Client
from bus.transport.file_transfer import FileOffer
from gpuping.client.bus_source import BusSource
from gpuping.client.rest_source import RestSource
from scheduler.ping.pinger import REPORT_LIMIT_BYTES, read_report
from storage import service
from storage.engine.rows import Arrival
from storage.service import Storage
from tests.gateway_behind import quick
from tests.storage_states import HEALTHY, gpu, series, state
from tests.waiting import clear_of_months_end

EVER = 87_600.0
PATIENT_SECONDS = 60.0  # a busy machine takes longer than the 5 s that clients wait
OCTOBER = datetime(2026, 10, 1, tzinfo=UTC)
FLAPS = Seconds(up=540.0, down=360.0)


@pytest.fixture
async def storage(bus: Client, base_settings: Settings) -> AsyncIterator[Storage]:
    async with service.running(base_settings) as running:
        yield running


async def put(storage: Storage, states: list[AgentState]) -> None:
    """Into the file, past the stream: it is the answers that are looked at."""
    batch = [Arrival(place, one.agent_id, encode(one)) for place, one in enumerate(states, 1)]
    await storage.store.write(1, await storage.store.prepare(batch))


def eight_gpus(count: int) -> list[AgentState]:
    gpus = tuple(
        gpu(HEALTHY, uuid=f"GPU-{i}1111111-2222-3333-4444-555555555555", index=i) for i in range(8)
    )
    return series("many", count, utc_now() - timedelta(days=20), gpus=gpus)


def flapping_month() -> list[AgentState]:
    """A GPU that is lost every five minutes: 8,900 incidents."""
    states = []
    for number in range(1, 31 * 96):
        at = OCTOBER + timedelta(minutes=15 * number)
        lost = tuple(
            Incident(
                gpu=f"GPU-{'1' * 36}",
                state="down",
                reason="lost",
                since=since,
                until=since + timedelta(seconds=120),
            )
            for since in (at - timedelta(seconds=900 - 300 * k) for k in range(3))
        )
        states.append(
            state("flap", number, at, FLAPS, gpus=(gpu(FLAPS),), incidents=lost, verdict="poor")
        )
    return states


def of_another_hand() -> AgentState:
    """Thousands of GPUs, as no scheduler writes them, each shown at ten times its length."""
    one = state("a", 3, utc_now() - timedelta(minutes=1), FLAPS, verdict="poor")
    report = json.loads(bytes(one.last.report)) | {"gpus": [{"uuid": f"{i}"} for i in range(8_000)]}
    return replace(one, last=replace(one.last, report=Raw(json.dumps(report).encode())))


async def history(client: Client, agent_id: str, **asked) -> HistoryReply:
    request = HistoryRequest(**({"hours": EVER} | asked))
    return await micro_services.ask(
        client, subjects.history(agent_id), request, HistoryReply, who="storage"
    )


async def test_a_page_ends_where_a_message_would_and_the_next_goes_on(
    bus: Client, storage: Storage
):
    await put(storage, eight_gpus(1_000))
    page = await history(bus, "many")
    assert 300 < len(page.pings) < 1_000
    assert len(encode(page)) > 800_000
    seen, pages = [ping.ping_seq for ping in page.pings], 1
    while page.next_cursor is not None:
        page = await history(bus, "many", cursor=page.next_cursor)
        seen, pages = seen + [ping.ping_seq for ping in page.pings], pages + 1
    assert seen == list(range(1_000, 0, -1))
    assert pages < 5
    source = BusSource(FleetClient(bus, 10.0))
    assert [ping.ping_seq for ping in (await source.history("many", EVER, 900)).pings] == seen[:900]


async def test_recent_pings_are_as_many_as_a_message_carries(bus: Client, storage: Storage):
    await put(storage, eight_gpus(1_000))
    asked = OverviewRequest(hours=EVER, recent=1_000)
    found = await micro_services.ask(bus, subjects.OVERVIEW, asked, OverviewReply, who="storage")
    assert found.pings == 1_000
    assert 200 < len(found.recent) < 1_000
    assert [ping.ping_seq for ping in found.recent] == list(
        range(1_000, 1_000 - len(found.recent), -1)
    )


def test_the_longest_report_that_a_scheduler_takes_is_less_than_a_page():
    """A GPU of which nothing is said is shown at ten times its length; no text grows more than
    that.
    """
    told = json.loads(bytes(state("a", 1, OCTOBER).last.report))
    told["gpus"] = []
    room = REPORT_LIMIT_BYTES - len(json.dumps(told, separators=(",", ":")))
    told["gpus"] = [{"uuid": ""}] * (room // len('{"uuid":""},'))
    data = json.dumps(told, separators=(",", ":")).encode()
    assert len(data) > REPORT_LIMIT_BYTES - 20
    report = read_report(data)
    assert len(encode(ping_of(state("a", 1, OCTOBER), report))) < large_answers.PAGE_BYTES


async def test_an_outcome_that_no_message_carries_hides_nothing_that_is_older(
    bus: Client, storage: Storage
):
    await put(storage, [*series("a", 2, utc_now() - timedelta(hours=1)), of_another_hand()])
    page = await history(bus, "a")
    assert [(ping.ping_seq, len(ping.gpus)) for ping in page.pings] == [(3, 0), (2, 1), (1, 1)]
    overview = await micro_services.ask(
        bus, subjects.OVERVIEW, OverviewRequest(), OverviewReply, who="storage"
    )
    assert len(overview.recent) == 3


async def test_a_long_statement_comes_as_a_file_and_a_short_one_as_itself(
    bus: Client, storage: Storage, base_settings: Settings
):
    await put(storage, flapping_month())
    asked = StatementRequest(month="2026-10", enrolments=(Enrolment(OCTOBER),))
    flapping = subjects.statement("flap")
    offer = await micro_services.ask(
        bus, flapping, asked, FileOffer, who="storage", timeout=PATIENT_SECONDS
    )
    assert (offer.name, offer.media_type) == ("flap-2026-10.json", "application/json")
    assert offer.total_bytes > 1_000_000
    made = await large_answers.ask_whole(
        bus, flapping, asked, Statement, who="storage", timeout=PATIENT_SECONDS
    )
    assert len(made.incidents) == 3 * (31 * 96 - 1)
    short = await micro_services.ask_raw(
        bus,
        flapping,
        encode(replace(asked, month="2026-11")),
        who="storage",
        timeout=PATIENT_SECONDS,
    )
    assert msgspec.json.decode(short, type=Statement).month == "2026-11"
    with pytest.raises(RefusedError, match="no history"):
        await large_answers.ask_whole(
            bus,
            subjects.statement("nobody"),
            replace(asked, enrolments=()),
            Statement,
            who="storage",
            timeout=PATIENT_SECONDS,
        )
    chosen = quick(base_settings)
    async with (
        scheduler.service.running(chosen),
        gateway.service.running(chosen) as running,
        httpx.AsyncClient(base_url=running.url, timeout=20) as http,
    ):
        answer = await http.get("/ping-system/agents/flap/report?month=2026-10")
        assert answer.status_code == 200
        assert len(answer.json()["incidents"]) == len(made.incidents)
        by_rest = await RestSource(running.url, None).report("flap", asked)
        assert by_rest.incidents == made.incidents
    assert len(storage.files._held) == 1  # the offer that was not fetched


async def test_where_messages_are_smaller_so_are_the_answers(bus: Client, storage: Storage):
    await clear_of_months_end()
    storage.client._max_payload = 64_000  # as a server that is set so would have said
    await put(
        storage,
        [state(f"agent-{number:04}", 1, utc_now(), FLAPS, verdict="poor") for number in range(500)],
    )
    asked = FleetReplayRequest(month=f"{utc_now():%Y-%m}", threshold=50.0)
    offer = await micro_services.ask(bus, subjects.REPLAY, asked, FileOffer, who="storage")
    assert (offer.name, offer.piece_bytes) == (f"fleet-replay-{asked.month}.json", 32_000)
    made = await large_answers.ask_whole(bus, subjects.REPLAY, asked, FleetReplay, who="storage")
    assert len(made.agents) == 500
    few = await micro_services.ask(
        bus, subjects.REPLAY, replace(asked, limit=3), FleetReplay, who="storage"
    )
    assert len(few.agents) == 3
    overview = OverviewRequest(recent=1_000)
    found = await micro_services.ask(bus, subjects.OVERVIEW, overview, OverviewReply, who="storage")
    assert 40 < len(found.recent) < 100
