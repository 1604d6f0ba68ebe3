"""A wait_log of ingest is told once."""

import pytest
from structlog.testing import capture_logs

from storage.engine.errors import reason_for
from storage.stream.wait_log import WaitLog


def test_one_trouble_is_told_once_in_each_of_its_words_and_so_is_its_end():
    wait_log = WaitLog()
    with capture_logs() as told:
        for _ in range(3):
            wait_log.waiting("no room")
            wait_log.waiting("no room for the log")
        assert wait_log.detail == "no room for the log"
        wait_log.running()
        wait_log.running()
        wait_log.waiting("no room")
    assert [(one["event"], one.get("detail")) for one in told] == [
        ("ingest_paused", "no room"),
        ("ingest_paused", "no room for the log"),
        ("ingest_resumed", None),
        ("ingest_paused", "no room"),
    ]


def test_it_is_over_when_what_could_not_be_written_has_been():
    wait_log = WaitLog()
    wait_log.waiting("no room")
    wait_log.write_failed(1000)
    wait_log.waiting("no room")
    wait_log.write_failed(900)
    wait_log.written(999)
    assert wait_log.detail == "no room"
    wait_log.written(1000)
    assert wait_log.detail is None
    wait_log.waiting("away")
    wait_log.written(7)
    assert wait_log.detail is None


@pytest.mark.parametrize(
    ("detail", "reason"),
    [
        (
            '/srv/ä b: Could not set lock on file "/srv/ä b": held in /bin/x (PID 7) by user ada',
            "another process holds the lock on its file",
        ),
        ("/srv/x: [Errno 28] No space left on device", "the disk has no room"),
        ("/srv/x: [Errno 13] Permission denied: '/srv/x'", "its folder cannot be written"),
        ("starting", "starting"),
        ("/srv/x: something new", "its file or the history stream cannot be read"),
    ],
)
def test_the_reason_for_everybody_names_no_file(detail: str, reason: str) -> None:
    assert reason_for(detail) == reason
