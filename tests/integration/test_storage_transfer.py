"""Files over the bus in many pieces, at the receiver's pace."""

import os
from pathlib import Path

import pytest

from bus import clock
from bus.errors import RefusedError
from bus.transport import file_transfer
from bus.transport.connection import Client
from tests.waiting import until_answered


async def test_a_large_file_comes_whole_and_is_let_go(bus: Client, tmp_path: Path):
    data = os.urandom(3 * file_transfer.PIECE_BYTES + 12_345)
    path = tmp_path / "large"
    path.write_bytes(data)
    files = file_transfer.Files(bus)
    await files.start()
    offer = files.offer(path, "large.bin", "application/octet-stream")
    pieces = [piece async for piece in file_transfer.receive(bus, offer)]
    assert [len(piece) for piece in pieces] == [file_transfer.PIECE_BYTES] * 3 + [12_345]
    assert b"".join(pieces) == data
    assert not path.exists()
    await files.stop()


async def test_an_empty_file_is_a_file(bus: Client, tmp_path: Path):
    path = tmp_path / "empty"
    path.touch()
    files = file_transfer.Files(bus)
    await files.start()
    assert [
        piece async for piece in file_transfer.receive(bus, files.offer(path, "e", "text/csv"))
    ] == []
    assert not path.exists()
    await files.stop()


async def test_files_that_nobody_fetches_are_limited_and_let_go_at_the_end(
    bus: Client, tmp_path: Path
):
    files = file_transfer.Files(bus)
    for number in range(file_transfer.MOST_FILES):
        files.check_room()
        path = tmp_path / str(number)
        path.touch()
        files.offer(path, path.name, "text/csv")
    with pytest.raises(RefusedError):
        files.check_room()
    await files.stop()
    assert not list(tmp_path.glob("[0-9]*"))


@pytest.mark.parametrize(
    "request_", [b'{"offset":-1}', b'{"offset":9223372036854775808}', b"nonsense", b""]
)
async def test_a_file_that_was_asked_for_wrongly_is_let_go_all_the_same(
    bus: Client, tmp_path: Path, request_: bytes
):
    files = file_transfer.Files(bus, idle_seconds=0.3)
    await files.start()
    path = tmp_path / "file"
    path.write_bytes(b"data")
    offer = files.offer(path, "f", "text/csv")
    offered = clock.boottime()
    with pytest.raises(TimeoutError):
        await bus.request(offer.subject, request_, timeout=0.1)
    assert path.exists() or clock.boottime() - offered > 0.3
    await until_answered(lambda: _gone(path))
    await files.stop()


async def _gone(path: Path) -> bool:
    return not path.exists()


async def test_a_piece_that_cannot_be_read_leaves_the_alarm_on(bus: Client, tmp_path: Path):
    files = file_transfer.Files(bus, idle_seconds=0.3)
    await files.start()
    path = tmp_path / "file"
    path.write_bytes(b"data")
    offer = files.offer(path, "f", "text/csv")
    path.unlink()
    path.mkdir()
    with pytest.raises(TimeoutError):
        await bus.request(offer.subject, b'{"offset":0}', timeout=0.1)
    path.rmdir()
    path.write_bytes(b"data")
    await until_answered(lambda: _gone(path))
    await files.stop()
