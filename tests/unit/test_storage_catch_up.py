"""When what stood in the stream counts as taken in."""

from storage.stream.catch_up import CatchUp


def begun(there: int) -> CatchUp:
    catch_up = CatchUp()
    assert not catch_up.complete
    catch_up.begin(there)
    return catch_up


def test_an_empty_stream_is_taken_in_at_once():
    assert begun(0).complete


def test_it_is_whole_when_as_much_was_written_as_stood_there_however_much_has_come_since():
    catch_up = begun(100)
    catch_up.advance(99, pending=50)
    assert (catch_up.complete, catch_up.read) == (False, 99)
    catch_up.advance(140, pending=50)
    assert (catch_up.complete, catch_up.read, catch_up.total) == (True, 100, 100)


def test_it_is_whole_when_nothing_more_is_to_come_though_some_of_it_was_deleted_meanwhile():
    catch_up = begun(100)
    catch_up.advance(97, pending=0)
    assert catch_up.complete


def test_once_whole_it_stays_so_until_reading_begins_again():
    catch_up = begun(1)
    catch_up.advance(1, pending=0)
    catch_up.advance(2, pending=7)
    assert catch_up.complete
    catch_up.begin(3)
    assert not catch_up.complete
    catch_up.begin(0)
    catch_up.reset()
    assert (catch_up.complete, catch_up.total) == (False, None)
    catch_up.advance(5, pending=0)
    assert not catch_up.complete, "written by somebody who read before the file was opened anew"
