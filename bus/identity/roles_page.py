"""The table of roles for docs/security.md: `python -m bus.identity.roles_page` writes it there."""

from pathlib import Path

from bus.identity import accounts
from bus.identity.roles import ROLES, Role

BEGIN = "<!-- roles: begin -->\n"
END = "<!-- roles: end -->"
PAGE = Path("docs/security.md")
_WRITTEN: dict[accounts.Reach, str] = {
    "nothing": "nothing: JetStream answers it nothing",
    "own": "what it may publish itself, and nothing else",
    "fleet": "**any subject of the fleet**: it is trusted",
}


def table() -> str:
    """Every role: its purpose, what it may publish, hear, and have JetStream write, in Markdown."""
    lines = ["| role | may publish | may hear | may have JetStream write |", "|---|---|---|---|"]
    for name, role in ROLES.items():
        described = f"**{name}** {role.purpose}{_limits(role)}"
        columns = (
            described,
            _subjects(role.publish),
            _subjects(role.subscribe),
            _WRITTEN[accounts.reach_of(name)],
        )
        lines.append(f"| {' | '.join(columns)} |")
    return "\n".join(lines) + "\n"


def with_table(page: str) -> str:
    """The page with the present table between its two marks."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}{table()}{END}{after}"


def _limits(role: Role) -> str:
    if role.answers:
        return (
            f" May also send {role.answers} message to the reply subject of each that it hears; "
            f"messages of {role.max_payload} bytes at most."
        )
    return ""


def _subjects(subjects: tuple[str, ...]) -> str:
    return " ".join(f"`{subject}`" for subject in subjects)


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))
