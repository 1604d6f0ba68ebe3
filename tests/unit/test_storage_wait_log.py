"""A trouble of ingest is told once."""

from structlog.testing import capture_logs

from storage.stream.wait_log import WaitLog


def test_one_trouble_is_told_once_in_each_of_its_words_and_so_is_its_end():
    trouble = WaitLog()
    with capture_logs() as told:
        for _ in range(3):
            trouble.waits("no room")
            trouble.waits("no room for the log")
        assert trouble.detail == "no room for the log"
        trouble.over()
        trouble.over()
        trouble.waits("no room")
    assert [(one["event"], one.get("detail")) for one in told] == [
        ("ingest_waits", "no room"),
        ("ingest_waits", "no room for the log"),
        ("ingest_goes_on", None),
        ("ingest_waits", "no room"),
    ]


def test_it_is_over_when_what_could_not_be_written_has_been():
    trouble = WaitLog()
    trouble.waits("no room")
    trouble.stuck(1000)
    trouble.waits("no room")
    trouble.stuck(900)
    trouble.written(999)
    assert trouble.detail == "no room"
    trouble.written(1000)
    assert trouble.detail is None
    trouble.waits("away")
    trouble.written(7)
    assert trouble.detail is None
