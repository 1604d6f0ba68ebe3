"""Fixtures that only tests of this folder share."""

from collections.abc import Iterator

import pytest

from tests.browser import Browser, chromium


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One tab for all tests of a file, because starting Chromium takes seconds."""
    with chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened
