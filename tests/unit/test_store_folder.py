"""The streams of a server without identities are taken over by renaming one folder."""

from pathlib import Path

import pytest

from bus.identity.authority import AuthorityError
from bus.identity.server.store_folder import take_over

ACCOUNT = "AACCOUNT"


def put(accounts: Path, name: str) -> None:
    (accounts / name / "streams" / "KV_gpuping").mkdir(parents=True)


def test_a_new_data_dir_has_nothing_to_take_over(tmp_path):
    assert take_over(tmp_path / "absent", ACCOUNT) == ()


@pytest.mark.parametrize("old", ["GPUPING", "$G"])
def test_the_folder_is_renamed_once(tmp_path, old):
    put(tmp_path, old)
    assert take_over(tmp_path, ACCOUNT) == ("KV_gpuping",)
    assert take_over(tmp_path, ACCOUNT) == ("KV_gpuping",)
    assert [path.name for path in tmp_path.iterdir()] == [ACCOUNT]


@pytest.mark.parametrize("other", [ACCOUNT, "$G"])
def test_two_folders_are_refused_in_one_line_and_stay(tmp_path, other):
    put(tmp_path, "GPUPING")
    put(tmp_path, other)
    with pytest.raises(AuthorityError, match=r"more than one account \(GPUPING and ") as refused:
        take_over(tmp_path, ACCOUNT)
    assert "\n" not in str(refused.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["GPUPING", other])
