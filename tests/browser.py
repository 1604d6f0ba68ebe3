"""A real Chromium for tests, and what it heard: its console, and every address that it asked."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

PATIENCE_SECONDS = 60.0
# nothing of the browser's own may reach out, or it would be counted as the page's
FLAGS = (
    "--headless",
    "--no-sandbox",  # it refuses to run as root otherwise
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1440,1000",
)


class Browser:
    """One tab. Everything waits for what it wants to see, with a deadline."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, url: str) -> None:
        """A page, loaded anew; what was logged before is forgotten."""
        self.driver.get("about:blank")
        self.console_errors()
        self.addresses()
        self.driver.get(url)

    def see(self, selector: str, text: str = "", seconds: float = PATIENCE_SECONDS) -> WebElement:
        """The first element that fits the selector, is shown, and holds the text."""

        def look(_: object) -> WebElement | None:
            return next(
                (e for e in self.all(selector) if e.is_displayed() and text in _text(e)), None
            )

        waiting = WebDriverWait(self.driver, seconds, 0.05, (StaleElementReferenceException,))
        found = waiting.until(look, f"{selector} with {text!r} is not shown")
        assert found is not None
        return found

    def gone(self, selector: str, seconds: float = PATIENCE_SECONDS) -> None:
        """Waits until nothing fits the selector."""
        WebDriverWait(self.driver, seconds, 0.05).until(
            lambda _: not self.all(selector), f"{selector} is still there"
        )

    def all(self, selector: str) -> list[WebElement]:
        """Every element that fits, now."""
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        """What the first fitting element says, with plain spaces; empty where there is none."""
        found = self.driver.execute_script(
            "return document.querySelector(arguments[0])?.innerText", selector
        )
        return str(found or "").replace("\u00a0", " ").strip()

    def script(self, code: str) -> object:
        """The value of a script in the page."""
        return self.driver.execute_script(code)

    def wait_for(self, code: str, seconds: float = PATIENCE_SECONDS) -> None:
        """Waits until a script in the page returns something true."""
        WebDriverWait(self.driver, seconds, 0.05).until(lambda _: self.script(code), code)

    def console_errors(self) -> list[str]:
        """What the console complained of since it was last asked."""
        entries = self.driver.get_log("browser")  # type: ignore[no-untyped-call]  # selenium leaves it untyped
        return [entry["message"] for entry in entries if entry["level"] in {"SEVERE", "WARNING"}]

    def addresses(self) -> list[str]:
        """Every address that was asked for since this was last asked."""
        entries = self.driver.get_log("performance")  # type: ignore[no-untyped-call]  # selenium leaves it untyped
        events = [json.loads(entry["message"])["message"] for entry in entries]
        return [
            e["params"]["request"]["url"]
            for e in events
            if e["method"] == "Network.requestWillBeSent"
        ]

    @contextmanager
    def running_first(self, code: str) -> Iterator[None]:
        """Runs a script in every page that is opened meanwhile, before the page's own."""
        added = self.driver.execute_cdp_cmd(
            "Page.addScriptToEvaluateOnNewDocument", {"source": code}
        )
        try:
            yield
        finally:
            self.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)

    def emulate(
        self,
        width: int,
        height: int,
        *,
        scheme: str = "light",
        reduced_motion: bool = False,
        forced_colours: bool = False,
    ) -> None:
        """A screen, and what its user prefers."""
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        motion = "reduce" if reduced_motion else "no-preference"
        media = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": motion},
            {"name": "forced-colors", "value": "active" if forced_colours else "none"},
        ]
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})


_AXE = Path(__file__).parents[1] / "node_modules/axe-core/axe.min.js"
_VIOLATIONS = """
return await axe.run(document, { resultTypes: ["violations"], preload: false })
  .then(({ violations }) =>
    violations.map(({ id, impact, nodes }) => [id, impact, nodes[0].html.slice(0, 200)]));
"""


def violations(browser: Browser) -> list[object]:
    """What axe finds wrong with the page as it stands: rule, impact and element of each."""
    assert _AXE.exists(), "axe-core is not installed: make web"
    browser.script(_AXE.read_text())
    found = browser.script(_VIOLATIONS)
    assert isinstance(found, list)
    return found


def _text(element: WebElement) -> str:
    return element.text.replace("\u00a0", " ")


def origins(addresses: list[str]) -> set[str]:
    """Whom a page asked; `data:` and `blob:` ask nobody."""
    parts = [urlsplit(address) for address in addresses]
    return {
        f"{part.scheme}://{part.netloc}"
        for part in parts
        if part.scheme not in {"data", "blob", "about"}
    }


@contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    """A browser with an empty profile. Both programs must be there.

    The dashboard is never left untested.
    """
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    assert browser, "chromium is not installed: apt-get install chromium"
    assert driver, "chromedriver is not installed: apt-get install chromium-driver"
    options = Options()
    options.binary_location = browser
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield Browser(chrome)
    finally:
        chrome.quit()
