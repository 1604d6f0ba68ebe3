"""A host that sends one bad message after another does not fill the log, nor hide others' lines."""

import pytest
import structlog

from bus.log_limit import AT_ONCE, LONGEST_TEXT, RepeatLimit, shorten


def written(limit: RepeatLimit, level: str = "warning", **fields: str) -> dict[str, object] | None:
    try:
        return dict(limit(None, level, {"event": "request_decode_failed", **fields}))
    except structlog.DropEvent:
        return None


def test_repeats_are_counted_and_said_once_a_minute_for_each_host() -> None:
    now = [0.0]
    limit = RepeatLimit(lambda: now[0])
    lines = [written(limit, agent_id="a") for _ in range(1000)]
    assert sum(line is not None for line in lines) == AT_ONCE
    assert written(limit, agent_id="b") is not None  # nobody hides another
    now[0] = 60.0
    line = written(limit, agent_id="a")
    assert line is not None
    assert line["left_out"] == 1000 - AT_ONCE
    assert written(limit, agent_id="a") is None


def test_a_flood_under_ever_new_names_takes_no_memory_without_end() -> None:
    limit = RepeatLimit(lambda: 0.0)
    for number in range(30_000):
        for _ in range(int(AT_ONCE) + 1 if number % 1000 == 0 else 1):
            written(limit, subject=f"gpuping.registry.get.{number}")
    assert len(limit._limit._buckets) <= 10_000
    assert len(limit._left_out) <= 10_000


def test_debugging_is_whole() -> None:
    limit = RepeatLimit(lambda: 0.0)
    assert all(written(limit, "debug", agent_id="a") for _ in range(100))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[2Jb\nc", r"a\x1b[2Jb\nc"),
        ("x" * 100_000, "x" * LONGEST_TEXT + "..."),
        ("für", "für"),
    ],
)
def test_what_was_sent_reaches_a_terminal_short_and_harmless(text: str, shown: str) -> None:
    line = shorten(None, "warning", {"event": "e", "detail": text})
    assert line["detail"] == shown
