"""Wheel and sdist contain the page, or the build fails and says why.

The page's libraries come from npm and are not in git. Where npm is installed they are fetched; a
build for a GPU host, which serves no page, may do without them: GPUPING_WITHOUT_PAGE=1. An
editable install takes the folder as it is.
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
LIBRARIES = ROOT / "gateway/static/vendor"
NEEDED = ("htm-preact.js", "uplot.js", "uplot.css", "swagger-ui-bundle.js", "swagger-ui.css")
WHAT_TO_DO = (
    "The libraries of gpuping's page are missing (gateway/static/vendor). Run `make web`, which "
    "needs Node.js with npm, and build again. For a GPU host, which needs agentd only, build "
    "without them: GPUPING_WITHOUT_PAGE=1 pip install '.[agentd]'"
)


def ensure_page() -> None:
    """Fetches the libraries where that can be done. Ends the build where they are missing."""
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
    """Whether every library is there."""
    return all((LIBRARIES / name).is_file() for name in NEEDED)


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
