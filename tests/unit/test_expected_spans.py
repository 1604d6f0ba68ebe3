"""When a GPU is expected: one computation, by which reports are admitted and statements account."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from bus.contract.durations import UNBOUNDED, Interval
from bus.contract.expected_gpus import ALWAYS, expected_spans
from bus.contract.messages import AgentEntry, GpuChange, PingRequest
from scheduler.ping.accounting.window import expected_intervals
from storage.statements.account import _spans_of_changes
from tests.agents import report

NOW = datetime(2026, 11, 28, tzinfo=UTC)
NOW_MS = round(NOW.timestamp() * 1000)
GPUS = ("GPU-a", "GPU-b", "GPU-c")


def changes_of(steps: Sequence[tuple[str, int]], first: dict[str, bool]) -> list[GpuChange]:
    """One change after another, each so many microseconds after the one before.

    Each expects the GPU or forgets it, in turn; `first` says which is the first.
    """
    changes = []
    counts: Counter[str] = Counter()
    at = NOW
    for uuid, later in steps:
        at += timedelta(microseconds=later)
        is_expected = first[uuid] == (counts[uuid] % 2 == 0)
        counts[uuid] += 1
        changes.append(GpuChange(uuid=uuid, expected=is_expected, since=at, author="x", at=at))
    return changes


def is_expected(changes: Sequence[GpuChange], uuid: str, at_ms: int) -> bool:
    """What the last change until a moment says; before the first, the opposite of what it says."""
    of_gpu = [change for change in changes if change.uuid == uuid]
    said = not of_gpu[0].expected
    for change in of_gpu:
        if (change.since - NOW) // timedelta(milliseconds=1) + NOW_MS <= at_ms:
            said = change.expected
    return said


@given(
    st.lists(st.tuples(st.sampled_from(GPUS), st.sampled_from((0, 0, 1, 999, 1_000, 5_000)))),
    st.fixed_dictionaries(dict.fromkeys(GPUS, st.booleans())),
)
def test_a_gpu_is_expected_as_the_last_change_says(
    steps: list[tuple[str, int]], first: dict[str, bool]
) -> None:
    changes = changes_of(steps, first)
    spans = expected_spans(changes)
    assert set(spans) == {change.uuid for change in changes}
    for uuid, of_gpu in spans.items():
        for one, other in pairwise(of_gpu):
            assert one.end < other.begin
        for at_ms in (-UNBOUNDED, *range(NOW_MS - 1, NOW_MS + 5 * len(steps) + 2)):
            covered = any(at_ms in span for span in of_gpu)
            assert covered == is_expected(changes, uuid, at_ms), (uuid, at_ms - NOW_MS)
    # The other GPUs of the host are expected all the time; statements count microseconds.
    entry = AgentEntry(
        agent_id="a",
        registered_at=NOW,
        enrolled_at=NOW,
        expected_gpus=("GPU-old", *GPUS[:1]),
        gpu_changes=tuple(changes),
    )
    admitted = expected_intervals(entry, report("a", PingRequest(window_seconds=1.0)))
    assert admitted == dict.fromkeys(entry.expected_gpus, ALWAYS) | spans
    for uuid, of_gpu_us in _spans_of_changes(changes).items():
        assert of_gpu_us == [Interval(one.begin * 1000, one.end * 1000) for one in spans[uuid]]
