"""The page on security prints the permissions that the code has."""

from pathlib import Path

from bus.identity.roles_page import with_table

PAGE = Path(__file__).parents[2] / "docs/security.md"


def test_the_table_of_roles_is_the_one_in_the_code() -> None:
    page = PAGE.read_text()
    assert with_table(page) == page, "run: python -m bus.identity.roles_page"
