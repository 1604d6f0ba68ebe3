"""No file of the product but `bus/contract/subjects.py` spells a subject of the bus."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("bus", "scheduler", "agentd", "storage", "gateway", "gpuping")
SUBJECTS = Path("bus/contract/subjects.py")
# permissions are templates and wildcards that the server fills in, not subjects that anybody uses
PERMISSIONS = (Path("bus/identity/roles.py"), Path("bus/identity/authority.py"))
PREFIXES = ("gpuping.", "$KV.", "$JS.", "$SRV.", "_INBOX", "KV_gpuping", "GPUPING_HISTORY")
OTHER_NAMES = {
    "gpuping.caller",  # a key of the ASGI scope
    "gpuping.wanted_max_bytes",  # keys of a stream's metadata
    "gpuping.migrating",
    "gpuping.restored-through",
    "gpuping.restoring",
}


def spelled(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of each string that looks like a subject; docstrings may name them."""
    tree = ast.parse(source)
    docstrings = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    loggers = {
        id(argument)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("get_logger")
        for argument in node.args
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
            continue
        if id(node) in docstrings or id(node) in loggers:
            continue
        if node.value.startswith(PREFIXES) and node.value not in OTHER_NAMES:
            yield node.lineno, node.value


def files() -> list[Path]:
    """Every source file of the product that must not spell a subject."""
    found = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return [path for path in found if path.relative_to(ROOT) not in {SUBJECTS, *PERMISSIONS}]


@pytest.mark.parametrize("package", PACKAGES)
def test_no_subject_is_spelled_outside_of_subjects(package: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text!r}"
        for path in files()
        if path.relative_to(ROOT).parts[0] == package
        for line, text in spelled(path.read_text())
    ]
    assert found == []


def test_the_search_finds_what_it_looks_for() -> None:
    source = '''
"""gpuping.ping.a in a docstring"""
log = structlog.get_logger("gpuping.output")
a = "gpuping.ping.a"
b = f"$KV.{bucket}.state"
c = "see gpuping.ping.a"
'''
    assert list(spelled(source)) == [(4, "gpuping.ping.a"), (5, "$KV.")]


def test_the_home_of_subjects_spells_them() -> None:
    assert list(spelled((ROOT / SUBJECTS).read_text()))
