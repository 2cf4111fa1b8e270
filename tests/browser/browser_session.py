"""The page in Debian's Chromium, and what the browser saw."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

CHROMIUM = os.environ.get("MANYEYES_CHROMIUM", "/usr/bin/chromium")
SCREENSHOTS = Path(os.environ.get("MANYEYES_SCREENSHOTS", "build/screenshots"))
ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESK, PHONE = (1280, 800), (390, 844)
TABS = ("Chat", "Documents", "Compare", "Fallback", "Individual", "Agent", "Cluster")
ANSWER_MS = 120_000  # vLLM on CPU, on a busy machine

ANSWERS = "#chat .bot.message > .message:nth-child(1)"
NOTES = "#chat .bot.message > .message:nth-child(2)"
QUESTIONS = "#chat .user-row"
STOP = "#question button[aria-label=Stop]"
SUBMIT = "#question button[aria-label=Submit]"


class Visit:
    """One opened page and what its browser saw."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.strangers: list[str] = []
        self.complaints: list[str] = []
        own = urlsplit(url).netloc
        page.on("request", lambda request: self._requested(request.url, own))
        page.on("console", lambda message: self._said(message.type, message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def open(self) -> None:
        """Chromium drops all requests when an interface comes or goes, as when a container starts beside it."""
        for _ in range(5):
            self.complaints.clear()
            self.page.goto(self.url)
            try:
                expect(self.page.locator("#states .pool").first).to_be_visible(timeout=20_000)
            except AssertionError:
                if not any("ERR_NETWORK_CHANGED" in complaint for complaint in self.complaints):
                    raise
            else:
                return
        pytest.fail("the network of this machine keeps changing; the page never loaded")

    def ask(self, question: str) -> None:
        self.page.locator("#question textarea").fill(question)
        self.page.locator(SUBMIT).click()

    def wait_for_note(self, nth: int) -> Locator:
        """The note under the `nth` answer, once it is there: the answer is complete then."""
        note = self.page.locator(NOTES).nth(nth)
        expect(note).to_have_text(re.compile(r"\S"), timeout=ANSWER_MS)
        return note

    def watch_growth(self) -> None:
        """From here on the page itself notes every length that its first answer has; a busy machine misses none."""
        self.page.evaluate(
            """answers => {
                window.lengths = [];
                new MutationObserver(() => {
                    const length = (document.querySelector(answers)?.textContent ?? '').trim().length;
                    if (length && length !== window.lengths.at(-1)) window.lengths.push(length);
                }).observe(document.querySelector('#chat'), {childList: true, subtree: true, characterData: true});
            }""",
            ANSWERS,
        )

    def growth(self) -> list[int]:
        """The lengths noted, one after the other."""
        return list(self.page.evaluate("window.lengths"))

    def nameless(self) -> list[str]:
        """Controls in sight that a person who listens to the page could not tell from others."""
        return list(
            self.page.evaluate(
                """() => [...document.querySelectorAll("button, input, textarea, [role=button]")]
                    .filter((e) => e.offsetParent !== null && !e.getAttribute("aria-label") && !e.innerText?.trim()
                        && !e.title && !e.labels?.length && !e.getAttribute("aria-labelledby"))
                    .map((e) => e.outerHTML.slice(0, 200))"""
            )
        )

    def _requested(self, url: str, own: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("data", "blob") and parts.netloc != own:
            self.strangers.append(url)

    def _said(self, kind: str, text: str) -> None:
        if kind == "error":
            self.complaints.append(text)


@contextmanager
def chromium(*more: str) -> Iterator[Browser]:
    """A browser without a screen. `more`: arguments beside the usual ones."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*ARGS, *more])
        yield browser
        browser.close()


def shoot(page: Page, name: str) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png")


def open_tab(page: Page, name: str) -> Locator:
    """The panel of the tab. On a narrow screen the rest of the tabs is behind a button."""
    shown = page.get_by_role("tab", name=name, exact=True)
    if shown.count() and shown.is_visible():
        shown.click()
    else:
        page.locator(".overflow-menu > button").click()
        page.locator(".overflow-dropdown").get_by_text(name, exact=True).click()
    return page.locator("[role=tabpanel]:visible")


def download(page: Page, button: Locator) -> Path:
    """The file that a click on the button saves."""
    with page.expect_download() as caught:
        button.click()
    return Path(caught.value.path())


@contextmanager
def visiting(browser: Browser, url: str, size: tuple[int, int] = DESK, **options: Any) -> Iterator[Visit]:
    """The opened page; afterwards it must have asked nobody but its own origin. `options`: of Playwright's new_context()."""
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, **options)
    visit = Visit(context.new_page(), url)
    visit.open()
    yield visit
    context.close()
    assert visit.strangers == []
