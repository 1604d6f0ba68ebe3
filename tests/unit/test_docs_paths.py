"""Every path and link in the documentation has its target, and the code cites pages that exist."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FOLDERS = (
    "bus",
    "scheduler",
    "agentd",
    "storage",
    "gateway",
    "gpuping",
    "deploy",
    "bench",
    "tests",
    "docs",
)
SOURCES = [
    path
    for folder in FOLDERS
    for suffix in ("*.py", "*.sql", "*.toml", "*.service", "*.conf")
    for path in sorted((ROOT / folder).rglob(suffix))
    if path != Path(__file__)
]
NOT_IN_THE_REPOSITORY = {
    "tests/test_ping_based_monitoring.py": "the name of a test in the guide, docs/guide.md",
    "tests/test_gpu_pipeline_integration.py": "the name of a test in the guide, docs/guide.md",
    "deploy/tokens.toml": "made by `gpuping token`, in docs/operations.md",
    "docs/security.md": "is being written together with the identities that it documents",
    "bench/latest.json": "written by `make bench`",
}

CITED_PATH = re.compile(rf"(?<![\w/.:-])(?:{'|'.join(FOLDERS)})/[\w./*-]*\w[\w./*-]*")
CITED_PAGE = re.compile(r"(?<![\w/.-])(?:docs/[\w./-]*\w|[\w./-]*\w\.md)\b(?:#[\w-]+)?")
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)


def name(path: Path) -> str:
    """The path below the root, as test id."""
    return str(path.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """The anchors that a Markdown renderer makes of the page's headings."""
    headings = HEADING.findall(page.read_text())
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.strip().replace(" ", "-") for heading in plain}


def missing_paths(text: str) -> Iterator[str]:
    """The paths and patterns that the text cites and that fit nothing in the repository."""
    for path in CITED_PATH.findall(text):
        cited = path.rstrip(".")
        if cited not in NOT_IN_THE_REPOSITORY and not any(ROOT.glob(cited)):
            yield cited


def broken_links(page: Path) -> Iterator[str]:
    """The page's links to files or headings that do not exist.

    Links to other sites are not followed.
    """
    for link in LINK.findall(page.read_text()):
        if re.match(r"\w+://", link):
            continue
        target, _, anchor = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        heading_is_missing = anchor and path.exists() and anchor not in anchors(path)
        if not path.exists() or heading_is_missing:
            yield link


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_page_cites_what_exists(page: Path) -> None:
    """Modules are renamed more often than pages are read."""
    assert not list(missing_paths(page.read_text()))
    assert not list(broken_links(page))


TRACE = re.compile(r"^### (.+)\n\n((?:\d+\. .+\n(?:   .+\n)*)+)", re.MULTILINE)
ITEM = re.compile(r"^\d+\. ", re.MULTILINE)
LONGEST_TRACES = {"One ping": 12, "One REST question": 8, "One sample": 9}


def test_traces_stay_short() -> None:
    """A newcomer can follow a ping, a question and a sample through this many files, one a line."""
    traces = dict(TRACE.findall((ROOT / "docs/architecture.md").read_text()))
    lengths = {heading.split(",")[0]: len(ITEM.findall(items)) for heading, items in traces.items()}
    assert set(lengths) == set(LONGEST_TRACES)
    for heading, items in traces.items():
        length = lengths[heading.split(",")[0]]
        assert len(CITED_PATH.findall(items)) == length
        assert length <= LONGEST_TRACES[heading.split(",")[0]]


def test_code_cites_pages_that_exist() -> None:
    """A docstring or comment names a page of the documentation by its path from the root."""
    broken = []
    for source in SOURCES:
        for cited in CITED_PAGE.findall(source.read_text()):
            path, _, anchor = cited.partition("#")
            page = ROOT / path
            if path in NOT_IN_THE_REPOSITORY:
                continue
            if not page.exists() or (anchor and anchor not in anchors(page)):
                broken.append(f"{name(source)}: {cited}")
    assert not broken


def test_a_missing_path_and_a_broken_link_are_found(tmp_path: Path) -> None:
    """The checks above find what they look for."""
    assert not list(missing_paths("pytest tests/unit/test_ledger_*.py"))
    assert list(missing_paths("pytest tests/unit/no_such_*.py")) == ["tests/unit/no_such_*.py"]
    assert list(missing_paths("see `storage/no_such_module.py`, and `storage/service.py`.")) == [
        "storage/no_such_module.py"
    ]
    page = tmp_path / "page.md"
    page.write_text("# One\n[a](#one) [b](#two) [c](other.md) [d](https://example.org/x)\n")
    assert list(broken_links(page)) == ["#two", "other.md"]
