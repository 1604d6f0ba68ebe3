"""The Swagger UI page in a real browser: it shows every route and makes no outside request."""

import asyncio

import pytest

from bus.settings import Settings
from gateway import service
from gateway.app import ROUTES
from gateway.web.assets import STATIC_FOLDER
from tests.browser import Browser, origins, violations
from tests.gateway_behind import quick


@pytest.mark.skipif(
    not (STATIC_FOLDER / "vendor/swagger-ui-bundle.js").exists(),
    reason="the page's parts: make web",
)
async def test_the_page_of_the_description(base_settings: Settings, browser: Browser):
    async with service.running(quick(base_settings)) as gateway:
        shown = sum(
            len(route.paths) for route in ROUTES if route.resolve_include_in_schema() is not False
        )

        def look() -> None:
            browser.open(f"{gateway.url}/schema")
            browser.see(".info .title", "gpuping")
            browser.see(".opblock-summary-path", "register")
            assert len(browser.all(".opblock")) == shown
            assert browser.console_errors() == []
            assert origins(browser.addresses()) == {gateway.url}
            # with an endpoint opened: its fields and tables have names, too
            browser.script("document.querySelectorAll('.opblock-summary-control')[1].click()")
            browser.see(".parameters select")
            for scheme, ground in (("light", "rgb(243, 245, 241)"), ("dark", "rgb(11, 17, 14)")):
                browser.emulate(1100, 900, scheme=scheme, reduced_motion=True)
                browser.wait_for(
                    f"return getComputedStyle(document.body).backgroundColor == {ground!r}"
                )
                assert violations(browser) == []

        await asyncio.to_thread(look)
