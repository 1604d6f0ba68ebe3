"""The dashboard's own logic, tested where it runs: `node --test` over tests/web."""

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_modules_of_the_page():
    node = shutil.which("node")
    assert node, "node is not installed; `make web` needs it as well"
    files = sorted(str(path) for path in (ROOT / "tests/web").glob("*.test.mjs"))
    assert files
    done = subprocess.run(
        [node, "--test", *files], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
