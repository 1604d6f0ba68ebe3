"""Takes the streams of a server without identities over into an authority's account.

A server names the folder of an account's streams by the account: `GPUPING` by the name that older
configurations gave it, `$G` where no account was configured, and its public key in operator mode.
The streams are therefore taken over by renaming one folder while the server is stopped. Renaming it
back undoes that.
"""

from pathlib import Path

from bus.identity.authority import AuthorityError

OLD_ACCOUNT_NAMES = ("GPUPING", "$G")


def take_over(accounts_folder: Path, account: str) -> tuple[str, ...]:
    """Renames the streams' folder to the account's public key, where there is an old one.

    accounts_folder: `<store_dir>/jetstream` of a server that is stopped. Returns the names of the
    streams that the account then has. Raises AuthorityError when there are streams under both
    names, because only a person can tell which of them are right.
    """
    new_folder = accounts_folder / account
    old_folders = _old_folders(accounts_folder)
    if len(old_folders) > 1 or (old_folders and new_folder.exists()):
        found = " and ".join(folder.name for folder in [*old_folders, new_folder])
        raise AuthorityError(
            f"{accounts_folder} has streams of more than one account ({found}): move away those "
            "that are not wanted, then start again"
        )
    if old_folders:
        old_folders[0].rename(new_folder)
    return stream_names(new_folder)


def give_back(
    accounts_folder: Path,
    account: str,
    old_name: str,
) -> tuple[str, ...]:
    """Undoes `take_over`: the folder of the account gets the name that an earlier version knows.

    The server must be stopped. Returns the names of the streams. Raises AuthorityError where the
    account has no streams here, or streams of before are here as well.
    """
    folder = accounts_folder / account
    if not folder.exists():
        raise AuthorityError(f"{accounts_folder} has no streams of the account {account}")
    if _old_folders(accounts_folder):
        found = " and ".join(path.name for path in [*_old_folders(accounts_folder), folder])
        raise AuthorityError(
            f"{accounts_folder} has streams of more than one account ({found}): move away those "
            "that are not wanted, then try again"
        )
    given_back = accounts_folder / old_name
    folder.rename(given_back)
    return stream_names(given_back)


def has_old_streams(accounts_folder: Path) -> bool:
    """Whether a server without identities left streams here."""
    return bool(_old_folders(accounts_folder))


def _old_folders(accounts_folder: Path) -> list[Path]:
    folders = [accounts_folder / name for name in OLD_ACCOUNT_NAMES]
    return [folder for folder in folders if folder.exists()]


def stream_names(account_folder: Path) -> tuple[str, ...]:
    """The streams that an account's folder holds, in order of their names."""
    streams = account_folder / "streams"
    if not streams.is_dir():
        return ()
    return tuple(sorted(path.name for path in streams.iterdir() if path.is_dir()))
