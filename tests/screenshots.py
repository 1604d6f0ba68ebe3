"""The README's pictures, made from the real page of `gpuping up --demo`: `make screenshots`."""

import sys
import tempfile
import time
from pathlib import Path

from tests.acceptance.system import Up
from tests.browser import Browser, chromium

IMAGES = Path(__file__).parents[1] / "docs/images"
WIDTH = 1440
HEIGHT = 1000
# until hosts have failed, recovered and been pinged less often
SECONDS_OF_LIFE = 75.0
HOST = "ams-l40-03"


def main() -> int:
    """Writes the pictures; the demo's data are thrown away."""
    with tempfile.TemporaryDirectory() as folder:
        up = Up(Path(folder) / "data", "--demo")
        try:
            up.printed("ready after", seconds=180)
            up.ready()
            up.printed("first answered ping", seconds=60)
            time.sleep(SECONDS_OF_LIFE)
            pending = [name for name, one in up.agents().items() if one["status"] == "pending"]
            assert not pending, f"never pinged: {pending}\n{up.output}"
            with chromium(Path(folder) / "profile") as browser:
                take(browser, f"{up.url}/#/", "dashboard.png")
                take(browser, f"{up.url}/#/agent/{HOST}", "agent.png", period="30d")
        finally:
            up.stop(seconds=30)
    return 0


def take(browser: Browser, url: str, name: str, period: str | None = None) -> None:
    """A picture of the page once its rows, and its chart where there is one, are drawn."""
    browser.emulate(WIDTH, HEIGHT, scheme="light", reduced_motion=True)
    browser.open(url)
    browser.see(".live", "Live")
    browser.wait_for("return document.querySelectorAll('.beat-good').length > 5")
    # all of storage's part is there, which a busy machine answers late
    browser.wait_for("return document.querySelector('[data-name=uptime]')?.innerText.endsWith('%')")
    browser.wait_for("return document.querySelectorAll('.feed li').length > 5")
    browser.gone(".trouble:not(.remarks)")
    if period is not None:
        browser.see(f"[data-period='{period}']").click()
        browser.see(f"[data-period='{period}'][aria-pressed=true]")
        browser.see(".detail .plot canvas")
        browser.wait_for("return Number(document.querySelector('.plot').dataset.pings) > 1000")
    time.sleep(1.0)  # fonts and the canvas
    browser.driver.save_screenshot(str(IMAGES / name))


if __name__ == "__main__":
    sys.exit(main())
