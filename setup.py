"""Wheel and sdist contain the page, or the build fails and says why.

The page is built with npm, and its libraries come from there; neither is in git. Where npm is
installed they are fetched and built. A build for a GPU host, which serves no page, may do without
them: GPUPING_WITHOUT_PAGE=1. An editable install takes the folder as it is.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

ROOT = Path(__file__).parent
STATIC = ROOT / "gateway/static"
NEEDED = (
    "built/index.html",
    "built/map.html",
    "vendor/htm-preact.js",
    "vendor/uplot.js",
    "vendor/uplot.css",
    "vendor/swagger-ui-bundle.js",
    "vendor/swagger-ui.css",
)
WHAT_TO_DO = (
    "gpuping's page is not built (gateway/static/built and vendor). Run `make web`, which "
    "needs Node.js 18 or newer with npm, and build again. For a GPU host, which needs agentd only, "
    "build without them: GPUPING_WITHOUT_PAGE=1 pip install '.[agentd]'"
)


def ensure_page() -> None:
    """Builds the page where that can be done. Ends the build where it is missing."""
    if has_page() or os.environ.get("GPUPING_WITHOUT_PAGE"):
        return
    npm = shutil.which("npm")
    if npm is not None and (ROOT / "package-lock.json").exists():
        fetch = [npm, "ci", "--no-audit", "--no-fund", "--loglevel=error"]
        for command in (fetch, [npm, "run", "--silent", "build"]):
            done = subprocess.run(command, cwd=ROOT, check=False)  # noqa: S603  # fixed arguments
            if done.returncode != 0:
                break
    if not has_page():
        sys.exit(WHAT_TO_DO)


def has_page() -> bool:
    """Whether the page and every library are there."""
    return all((STATIC / name).is_file() for name in NEEDED)


class BuildWithPage(build_py):
    """Copies the packages for a wheel."""

    def run(self) -> None:
        """See `ensure_page`. What is fetched now is found although the files were listed before."""
        if not self.editable_mode:
            ensure_page()
            self.data_files = self._get_data_files()
        super().run()


class SdistWithPage(sdist):
    """Collects the source distribution."""

    def run(self) -> None:
        """See `ensure_page`."""
        ensure_page()
        super().run()


setup(cmdclass={"build_py": BuildWithPage, "sdist": SdistWithPage})
