"""The table of roles for docs/security.md: `python -m bus.identity.roles_page` writes it there."""

from pathlib import Path

from bus.identity.roles import ROLES, Role

BEGIN = "<!-- roles: begin -->\n"
END = "<!-- roles: end -->"
PAGE = Path("docs/security.md")


def table() -> str:
    """Every role with its purpose, and what it may publish and hear, in Markdown."""
    lines = ["| role | may publish | may hear |", "|---|---|---|"]
    for name, role in ROLES.items():
        described = f"**{name}** {role.purpose}{_limits(role)}"
        lines.append(f"| {described} | {_subjects(role.publish)} | {_subjects(role.subscribe)} |")
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
