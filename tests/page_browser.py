"""A real browser, headless, that notices what a page must never do."""

import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright

__all__ = ["Visit", "browsing", "visiting"]

PATIENCE = 30_000
_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_NONE = (
    "there is no Chromium: on Debian `apt-get install chromium`, elsewhere name its program "
    "in CHROMIUM"
)
_WATCH = """
window.violations = [];
addEventListener("securitypolicyviolation", (event) => {
  window.violations.push(`${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}`);
});
"""


@contextmanager
def browsing() -> Generator[Browser]:
    """Run the browser; without one skip the test, or fail it where CHROMIUM_REQUIRED is set."""
    program = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if program is None:
        if os.environ.get("CHROMIUM_REQUIRED"):
            pytest.fail(_NONE)
        pytest.skip(_NONE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=_ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Visit:
    """A page that is visited, and what has gone wrong on it."""

    page: Page
    url: str
    errors: list[str] = field(default_factory=list[str])
    elsewhere: list[str] = field(default_factory=list[str])
    expected: tuple[str, ...] = ()
    left: bool = False

    def say(self, text: str) -> None:
        """Type a message, and send it."""
        self.page.get_by_label("Message", exact=True).fill(text)
        self.page.keyboard.press("Enter")

    def ask(self, text: str) -> None:
        """Send a message, and wait until the turn has ended and its answer is rendered."""
        ended = self.page.locator(".turn-end").count()
        self.say(text)
        self.page.locator(".turn-end").nth(ended).wait_for()
        self.settled()

    def settled(self) -> None:
        """Wait until no text in sight is plain that is to be rendered."""
        self.page.wait_for_function(
            "() => [...document.querySelectorAll('.section:not(.unseen) .plain')]"
            ".every((it) => !it.textContent)"
        )

    def expect(self, *parts: str) -> None:
        """Don't mind errors in the console that hold one of these."""
        self.expected += parts

    def check(self) -> None:
        """Find nothing wrong: no error, nothing forbidden tried, nothing asked for elsewhere."""
        assert self.page.evaluate("window.violations ?? []") == []
        assert self.page.evaluate("window.canary ?? null") is None
        assert self.elsewhere == []
        unexpected = [it for it in self.errors if not any(each in it for each in self.expected)]
        assert unexpected == [], unexpected

    def leave(self) -> None:
        """Find nothing wrong, and go: for those whose server ends before the test does."""
        self.check()
        self.left = True
        self.page.context.close()


@contextmanager
def visiting(browser: Browser, url: str, path: str = "/", **options: Any) -> Generator[Visit]:
    """Visit a page in a profile of its own, and find nothing wrong when it ends."""
    chosen: dict[str, Any] = {"viewport": {"width": 1440, "height": 900}, **options}
    context = browser.new_context(**chosen)
    context.set_default_timeout(PATIENCE)
    context.add_init_script(_WATCH)
    page = context.new_page()
    visit = Visit(page, url)

    def hear(message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            visit.errors.append(message.text)

    def look(request: Request) -> None:
        if not request.url.startswith((url, "data:")):
            visit.elsewhere.append(request.url)

    page.on("console", hear)
    page.on("pageerror", lambda error: visit.errors.append(str(error)))
    page.on("request", look)
    try:
        page.goto(f"{url}{path}")
        yield visit
        if not visit.left:
            visit.check()
    finally:
        context.close()
