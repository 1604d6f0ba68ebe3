"""Lists of agents: searched, ordered, counted and paged by the scheduler."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from msgspec import Raw
from msgspec.structs import replace

from bus.contract.messages import (
    AgentEntry,
    AgentState,
    GpuReport,
    KnownGpu,
    MaintenanceWindow,
    Outcome,
    UptimeReport,
    Window,
    encode,
)
from bus.contract.questions import ListRequest
from scheduler.fleet.directory import Directory
from scheduler.fleet.lists import agent_facts, listing
from scheduler.fleet.lists.agent_facts import AgentFacts
from scheduler.fleet.lists.listing import Matching
from scheduler.fleet.lists.views import agent_view
from tests.unit.test_directory_due import NOW, POLICY

LATER = datetime(2026, 11, 24, tzinfo=UTC)


def report(agent_id: str, *gpus: GpuReport) -> UptimeReport:
    window = Window(since=NOW, until=LATER, seconds=60.0)
    return UptimeReport(
        agent_id=agent_id, window=window, uptime_percent=50.0, gpu_available=True, gpus=gpus
    )


def gpu(number: int, name: str = "NVIDIA H100", state: str = "up", *reasons: str) -> GpuReport:
    return GpuReport(
        uuid=f"GPU-{number}", index=number, name=name, state=state, reasons=tuple(reasons)
    )


class Fleet:
    """A directory, what is read of it, and one revision after the other."""

    def __init__(self) -> None:
        self.directory = Directory(POLICY)
        self.facts = AgentFacts(self.directory)
        self.revision = 0

    def add(self, agent_id: str, answer: UptimeReport | None = None, **fields) -> None:
        self.revision += 1
        entry = AgentEntry(
            agent_id=agent_id,
            registered_at=NOW,
            enrolled_at=NOW,
            metadata=fields.pop("metadata", {}),
            expected_gpus=fields.pop("expected_gpus", ()),
        )
        self.directory.apply_entry(agent_id, entry, self.revision)
        outcome = Outcome(
            ping_id="p",
            ping_seq=1,
            pinged_at=NOW,
            outcome="answered" if answer else "missed",
            verdict="good" if answer else "poor",
            reason=None if answer else "timeout",
        )
        if answer:
            outcome = Outcome(
                ping_id="p",
                ping_seq=1,
                pinged_at=NOW,
                outcome="answered",
                verdict="good",
                report=Raw(encode(answer)),
            )
        self.revision += 1
        state = AgentState(
            agent_id=agent_id,
            ping_seq=1,
            interval_seconds=fields.pop("interval_seconds", 900.0),
            next_ping_at=NOW + timedelta(seconds=900),
            answered=1,
            last_outcome=outcome.outcome,
            last=outcome,
            **fields,
        )
        self.directory.apply_state(agent_id, state, self.revision, 0)

    async def page(self, **asked) -> listing.Listing:
        request = ListRequest(**asked)
        return await listing.in_order(Matching(self.directory, self.facts, request, LATER))

    async def ids(self, **asked) -> list[str]:
        page = await self.page(**asked)
        return [tracked.entry.agent_id for tracked in page.agents if tracked.entry]


@pytest.fixture
def fleet() -> Fleet:
    fleet = Fleet()
    fleet.add("Alpha-1", report("Alpha-1", gpu(0)), metadata={"site": "FRA"})
    fleet.add("beta-2", report("beta-2", gpu(0, "NVIDIA L4", "down", "xid:79")))
    fleet.add("gamma-3", expected_gpus=("GPU-0",), gpus_before=(KnownGpu("GPU-0", 0, "NVIDIA T4"),))
    return fleet


@pytest.mark.parametrize(
    ("search", "found"),
    [
        ("PHA", ["Alpha-1"]),
        ("site:fra", ["Alpha-1"]),
        ("h100 fra", ["Alpha-1"]),
        ("l4", ["beta-2"]),
        ("reason:xid", ["beta-2"]),
        ("reason:timeout", ["gamma-3"]),
        ("t4", ["gamma-3"]),
        ("-", ["Alpha-1", "beta-2", "gamma-3"]),
        ("uptime", []),  # the name of a field is no value
    ],
)
async def test_a_search_finds_parts_of_every_field(fleet: Fleet, search: str, found: list[str]):
    assert await fleet.ids(search=search) == found


async def test_only_the_agents_that_were_named_are_listed(fleet: Fleet):
    asked = ("gamma-3", "beta-2", "nobody")
    assert await fleet.ids(agent_ids=asked) == ["beta-2", "gamma-3"]
    assert await fleet.ids(agent_ids=asked, search="l4") == ["beta-2"]
    assert not listing.is_plain(ListRequest(order="worst", agent_ids=asked))


async def test_a_search_sees_what_changed_since_the_last_one(fleet: Fleet):
    assert await fleet.ids(search="a100") == []
    fleet.add("beta-2", report("beta-2", gpu(0, "NVIDIA A100")))
    assert await fleet.ids(search="a100") == ["beta-2"]
    assert await fleet.ids(search="l4") == []


@pytest.mark.parametrize("order", ["id", "worst", "uptime", "interval", "next", "response"])
@pytest.mark.parametrize("reverse", [False, True])
async def test_pages_of_any_order_have_every_agent_once(order: str, reverse: bool):
    fleet = Fleet()
    for number in range(23):
        fleet.add(
            f"a{number:02}",
            report(f"a{number:02}", gpu(0)),
            uptime_percent=float(number % 5),
            interval_seconds=900.0 * (number % 3 + 1),
            consecutive_poor=number % 4,
        )
    whole = await fleet.ids(order=order, reverse=reverse)
    assert len(set(whole)) == 23
    seen: list[str] = []
    cursor = None
    for _ in range(5):
        page = await fleet.page(order=order, reverse=reverse, limit=5, cursor=cursor, search="a")
        assert page.total == 23
        seen += [tracked.entry.agent_id for tracked in page.agents if tracked.entry]
        cursor = seen[-1]
    assert seen == whole
    assert page.more is False
    seen = []
    for offset in range(0, 25, 5):
        page = await fleet.page(order=order, reverse=reverse, limit=5, offset=offset)
        seen += [tracked.entry.agent_id for tracked in page.agents if tracked.entry]
    assert (seen, page.more) == (whole, False)
    after = await fleet.ids(order=order, reverse=reverse, limit=5, offset=3, cursor=whole[4])
    assert after == whole[8:13]


async def test_a_page_far_down_the_list_continues_the_ones_before():
    fleet = Fleet()
    answer = report("a", gpu(0))
    for number in range(listing.SORTED_FROM + 30):
        fleet.add(f"a{number}", answer, uptime_percent=float(-number % 7))
    for reverse in (False, True):
        order = {"order": "uptime", "reverse": reverse}
        before = await fleet.ids(**order, limit=20, offset=listing.SORTED_FROM - 20)
        beyond = await fleet.ids(**order, limit=30, offset=listing.SORTED_FROM - 10)
        assert beyond[:10] == before[10:]
        assert len(set(before + beyond)) == 40


async def test_the_worst_are_the_beginning_of_the_whole_list():
    """A host in maintenance is not among the missing, whatever its last ping found."""
    fleet = Fleet()
    for number in range(12):
        answer = report(f"a{number:02}", gpu(0)) if number % 3 else None
        fleet.add(f"a{number:02}", answer, uptime_percent=float(number % 5))
    span = MaintenanceWindow(since=NOW, until=LATER + timedelta(hours=1), booking_id="b1")
    for agent_id in ("a00", "a03"):
        tracked = fleet.directory.get(agent_id)
        assert tracked
        assert tracked.entry
        fleet.revision += 1
        booked = replace(tracked.entry, maintenance=(span,))
        fleet.directory.apply_entry(agent_id, booked, fleet.revision)
    whole = await fleet.ids(order="worst")
    assert whole[:2] == ["a06", "a09"]
    request = ListRequest(order="worst", limit=5)
    assert listing.is_plain(request)
    found = await listing.by_badness(Matching(fleet.directory, fleet.facts, request, LATER))
    assert [one.entry.agent_id for one in found.agents if one.entry] == whole[:5]
    assert (found.total, found.more) == (12, True)


async def test_gpus_are_counted_by_state(fleet: Fleet):
    counts = await fleet.facts.count_gpus()
    assert (counts.total, counts.up, counts.down, counts.unknown) == (3, 1, 1, 1)
    assert counts.hosts_lost_all == 2


def test_a_missing_host_keeps_the_names_of_its_gpus(fleet: Fleet):
    tracked = fleet.directory.get("gamma-3")
    assert tracked
    view = agent_view(tracked, POLICY, LATER)
    assert [(g.index, g.name, g.state, g.reported) for g in view.gpus] == [
        (0, "NVIDIA T4", "unknown", False)
    ]
    assert view.last_reason == "timeout"


async def test_a_search_after_a_change_goes_by_what_is_now(fleet: Fleet) -> None:
    assert await fleet.ids(search="reason:xid") == ["beta-2"]
    fleet.add("beta-2", report("beta-2", gpu(0, "NVIDIA L4")))
    fleet.add("delta-4", report("delta-4", gpu(0, "NVIDIA L4", "down", "xid:48")))
    assert await fleet.ids(search="reason:xid") == ["delta-4"]
    assert await fleet.ids(search="l4", status="healthy") == ["beta-2", "delta-4"]


async def test_a_removed_agent_is_not_found_and_counts_no_gpus(fleet: Fleet) -> None:
    assert await fleet.ids(search="beta") == ["beta-2"]
    before = await fleet.facts.count_gpus()
    fleet.revision += 1
    entry = AgentEntry(agent_id="beta-2", registered_at=NOW, enrolled_at=NOW, removed_at=NOW)
    fleet.directory.apply_entry("beta-2", entry, fleet.revision)
    assert await fleet.ids(search="beta") == []
    assert (await fleet.facts.count_gpus()).total == before.total - 1


async def test_a_search_finds_nobody_of_a_bus_that_is_gone(fleet: Fleet) -> None:
    assert await fleet.ids(search="-")
    fleet.directory.clear()
    assert await fleet.ids(search="-") == []
    assert (await fleet.facts.count_gpus()).total == 0


async def test_a_question_that_ends_early_leaves_nobody_unread(fleet: Fleet) -> None:
    for number in range(2 * agent_facts.READ_STEP):
        fleet.add(f"more-{number}", report(f"more-{number}", gpu(0)))
    question = asyncio.create_task(fleet.ids(search="more"))
    await asyncio.sleep(0)  # it has read a part of them
    question.cancel()
    with pytest.raises(asyncio.CancelledError):
        await question
    assert len(await fleet.ids(search="more")) == 2 * agent_facts.READ_STEP


async def test_a_search_among_those_that_are_due(fleet: Fleet) -> None:
    page = await listing.by_due_time(
        Matching(fleet.directory, fleet.facts, ListRequest(order="due", search="fra"), LATER)
    )
    assert [tracked.entry.agent_id for tracked in page.agents if tracked.entry] == ["Alpha-1"]
    assert page.total == 1
