"""When what stood in the stream counts as taken in."""

from storage.stream.catch_up import CatchUp


def begun(there: int) -> CatchUp:
    intake = CatchUp()
    assert not intake.complete
    intake.begins(there)
    return intake


def test_an_empty_stream_is_taken_in_at_once():
    assert begun(0).complete


def test_it_is_whole_when_as_much_was_written_as_stood_there_however_much_has_come_since():
    intake = begun(100)
    intake.reached(99, to_come=50)
    assert (intake.complete, intake.read) == (False, 99)
    intake.reached(140, to_come=50)
    assert (intake.complete, intake.read, intake.there) == (True, 100, 100)


def test_it_is_whole_when_nothing_more_is_to_come_though_some_of_it_was_deleted_meanwhile():
    intake = begun(100)
    intake.reached(97, to_come=0)
    assert intake.complete


def test_once_whole_it_stays_so_until_reading_begins_again():
    intake = begun(1)
    intake.reached(1, to_come=0)
    intake.reached(2, to_come=7)
    assert intake.complete
    intake.begins(3)
    assert not intake.complete
    intake.begins(0)
    intake.unknown()
    assert (intake.complete, intake.there) == (False, None)
    intake.reached(5, to_come=0)
    assert not intake.complete, "written by somebody who read before the file was opened anew"
