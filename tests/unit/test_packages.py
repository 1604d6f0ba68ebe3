"""Packages: they hold the page or are not built, and they hold what the services need."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

from bus.transport.micro_services import VERSION

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PACKAGES = ("bus", "scheduler", "agentd", "storage", "gateway", "gpuping")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What the build reads, as git has it: without the page that is built."""
    folder = tmp_path / "clone"
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__", "vendor", "built")
        shutil.copytree(ROOT / package, folder / package, ignore=ignored)
    for name in ("pyproject.toml", "setup.py", "README.md", "package.json", "package-lock.json"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def build(clone: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Builds a wheel without an environment of its own, and without npm."""
    programs = clone.parent / "programs"
    programs.mkdir(exist_ok=True)
    code = "from setuptools import build_meta; print(build_meta.build_wheel('dist'))"
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=clone,
        env={"PATH": str(programs), **environ},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_clean_clone_without_npm_is_not_built_and_says_what_to_do(clone):
    ended = build(clone)
    assert ended.returncode != 0
    assert "Run `make web`" in ended.stderr
    assert "GPUPING_WITHOUT_PAGE=1" in ended.stderr
    assert not list(clone.glob("dist/*.whl"))


@pytest.mark.parametrize(("version", "is_new_enough"), [("12.22.9", False), ("18.0.0", True)])
def test_make_says_which_node_it_needs(tmp_path, version, is_new_enough):
    """An older one, as of Ubuntu 22.04, ended in a SyntaxError of the page's build."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("package.json", "package-lock.json"):
        (tmp_path / name).write_text("{}")
    node = shutil.which("node")
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "npm").write_text("#!/bin/sh\n")
    says = f"Object.defineProperty(process.versions, 'node', {{value: '{version}'}}); $2"
    (programs / "node").write_text(
        f'#!/bin/sh\n[ "$1" = -e ] || exec echo v{version}\nexec {node} -e "{says}"\n'
    )
    for program in programs.iterdir():
        program.chmod(0o755)
    ended = subprocess.run(
        ["make", "node_modules/.fetched", "VENV=none", "WEB_SOURCES="],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ("this is v12.22.9" in ended.stderr) is not is_new_enough
    assert "Error" not in ended.stderr.replace("Error 1", "")


@pytest.mark.parametrize(
    ("version", "is_new_enough"),
    [
        ((3, 10, 12, "final", 0), False),
        ((3, 11, 0, "candidate", 1), False),  # of Ubuntu 22.04: pip left numpy out
        ((3, 11, 0, "final", 0), True),
        ((3, 14, 1, "final", 0), True),
    ],
)
def test_make_takes_a_released_python_only(version, is_new_enough):
    (check,) = re.findall(r"^IS_NEW_ENOUGH := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    check = check.replace("sys.version_info", repr(version))
    assert (subprocess.run([sys.executable, "-c", check], check=False).returncode == 0) is (
        is_new_enough
    )


def test_what_the_agentd_binary_needs_is_said_before_anything_is_built(tmp_path):
    """On a bare Debian 12 a release ended after minutes, for want of the one and then the other."""
    fake = tmp_path / "release/bin/python"
    fake.parent.mkdir(parents=True)
    says = "import sysconfig; sysconfig.get_config_vars()['INSTSONAME'] = 'libpython.absent.so'"
    (tmp_path / "sitecustomize.py").write_text(says)
    fake.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    fake.chmod(0o755)
    ended = subprocess.run(
        ["/bin/sh", "deploy/release/agentd-binary.sh"],
        cwd=ROOT,
        env={"PATH": str(tmp_path), "VENV": str(tmp_path), "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    said = ended.stderr.splitlines()
    assert [line.split()[3].rstrip(",") for line in said] == [
        "objdump",
        "strip",
        "libpython.absent.so",
    ]
    assert said[-1].endswith(f"libpython{sys.version_info.major}.{sys.version_info.minor})")


LEFT_LYING = (
    "gateway/static/ada.creds",
    "gateway/static/.env",
    "gateway/static/tokens.toml",
    "agentd/scenarios/tokens.toml",
    "bus/identity/operator.seed",
    "gpuping/alerts/rules/tokens.toml",
    "gateway/static/server.key",
)


def test_the_image_s_context_leaves_out_what_is_secret():
    """The last rule of .dockerignore that fits a path decides, as in Docker's own reference."""
    rules = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]

    def is_left_out(name: str) -> bool:
        is_out = False
        for rule in rules:
            pattern = rule.removeprefix("!").removeprefix("**/")
            parts = name.split("/")
            candidates = ["/".join(parts[: length + 1]) for length in range(len(parts))]
            if rule.startswith("**/"):
                candidates = parts
            if any(fnmatch(one, pattern) for one in candidates):
                is_out = not rule.startswith("!")
        return is_out

    assert not is_left_out("bus/identity/keys.py")
    assert not is_left_out("agentd/scenarios/healthy.toml")
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    for name in tracked:
        if name.startswith(tuple(f"{package}/" for package in PACKAGES)):
            assert not is_left_out(name), name
    for name in (*LEFT_LYING, ".env", "data/identity/operator.seed", "deploy/tokens.toml"):
        assert is_left_out(name), name


def test_a_clone_with_the_page_makes_a_whole_wheel(clone):
    """Without what is secret and was left lying where somebody has worked."""
    for name in LEFT_LYING:
        (clone / name).write_text("secret")
    for folder in ("vendor", "built"):
        shutil.copytree(ROOT / "gateway/static" / folder, clone / "gateway/static" / folder)
    assert build(clone).returncode == 0
    archive = subprocess.run(
        [sys.executable, "-c", "from setuptools import build_meta; build_meta.build_sdist('dist')"],
        cwd=clone,
        capture_output=True,
        check=True,
    )
    assert archive.returncode == 0
    check = ROOT / "deploy/release/check_packages.py"
    checked = subprocess.run(
        [sys.executable, check, clone / "dist"], capture_output=True, text=True, check=False
    )
    assert checked.stdout == ""
    assert checked.returncode == 0


def test_a_gpu_host_may_build_without_the_page(clone):
    assert build(clone, GPUPING_WITHOUT_PAGE="1").returncode == 0


def test_there_is_one_version():
    assert PROJECT["version"] == VERSION
    assert f":-{VERSION}}}" in (ROOT / "compose.yaml").read_text()


def pins_of(lock: str) -> dict[tuple[str, str], str]:
    """The version of each package and marker."""
    pinned = re.compile(r"^([\w.-]+)==(\S+?)\s*(?:;\s*(.*?))?\s*\\$", re.MULTILINE)
    found = pinned.finditer((ROOT / lock).read_text())
    return {(match[1], match[3] or ""): match[2] for match in found}


@pytest.mark.parametrize("lock", ["requirements-dev.txt", "requirements-release.txt"])
def test_what_is_tested_and_built_is_what_is_shipped(lock):
    shipped = pins_of("requirements.txt")
    other = pins_of(lock)
    assert len(shipped) > 30
    both = shipped.keys() & other.keys()
    assert {name: other[name] for name in both} == {name: shipped[name] for name in both}


def test_nobody_is_sent_to_a_package_index_for_gpuping():
    """`gpuping` of a package index is not ours: what is installed comes from a clone or a file."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.split():
        path = ROOT / name
        if path == Path(__file__) or path.suffix not in {".py", ".md", ".sh", ".service", ".yaml"}:
            continue
        text = path.read_text()
        for wrong in ("pip install gpuping", "pip install 'gpuping", 'pip install "gpuping'):
            assert wrong not in text, name
        assert "pipx install gpuping" not in text, name


def test_ci_runs_on_a_version_that_is_named():
    version = f"Programming Language :: Python :: 3.{sys.version_info.minor}"
    assert version in PROJECT["classifiers"]


# `gpuping` where these packages are not installed
WITHOUT = """
import sys

for name in {absent}:
    sys.modules[name] = None

from gpuping.cli import main

sys.exit(main({arguments}))
"""
OF_SERVERS = ["prometheus_client", "litestar", "uvicorn", "duckdb"]


@pytest.mark.parametrize("verb", ["up", "scheduler", "storage", "gateway", "enrolment"])
def test_a_package_that_is_not_installed_is_one_line(verb, tmp_path):
    """`gpuping up` ended in a traceback."""
    code = WITHOUT.format(absent=OF_SERVERS, arguments=[verb, "--data-dir", str(tmp_path)])
    ended = subprocess.run(
        (sys.executable, "-c", code), capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 1
    assert "is not installed: pip install" in ended.stderr


def test_a_gpu_host_needs_no_package_of_servers_for_agent_mode(tmp_path):
    """Its settings are read, and the next thing that it says is what is wrong with them."""
    code = WITHOUT.format(absent=OF_SERVERS, arguments=["up", "--data-dir", str(tmp_path)])
    environ = {"AGENT_MODE": "true", "AGENT_ID": "a1", "AGENT_SCENARIO": str(tmp_path / "none")}
    ended = subprocess.run(
        (sys.executable, "-c", code),
        env=os.environ | environ | {"NATS_URL": "nats://127.0.0.1:1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2
    assert "AGENT_SCENARIO" in ended.stderr.splitlines()[-1]
