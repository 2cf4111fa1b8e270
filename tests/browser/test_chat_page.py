"""The Chat tab in a real browser, against a running page: MANYEYES_URL=http://localhost:8080 pytest tests/browser"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from PIL import Image, ImageDraw
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

URL = os.environ.get("MANYEYES_URL", "")
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
ANSWER_MS = 120_000  # vLLM on CPU, on a busy machine

ANSWERS = "#chat .bot.message > .message:nth-child(1)"
NOTES = "#chat .bot.message > .message:nth-child(2)"
QUESTIONS = "#chat .user-row"
STOP = "#question button[aria-label=Stop]"
SUBMIT = "#question button[aria-label=Submit]"

pytestmark = pytest.mark.skipif(not URL, reason="MANYEYES_URL is not set: no running page to open")


class Visit:
    """One opened page and what its browser saw."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.strangers: list[str] = []
        self.complaints: list[str] = []
        own = urlsplit(URL).netloc
        page.on("request", lambda request: self._requested(request.url, own))
        page.on("console", lambda message: self._said(message.type, message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def open(self) -> None:
        """Chromium drops all requests when an interface comes or goes, as when a container starts beside it."""
        for _ in range(5):
            self.complaints.clear()
            self.page.goto(URL)
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

    def lengths_while_streaming(self) -> list[int]:
        """The lengths the first answer had, one after the other, until it is complete."""
        seen = [0]
        for _ in range(ANSWER_MS // 50):
            text = self.page.locator(ANSWERS).first.text_content() or ""
            if len(text) != seen[-1]:
                seen.append(len(text))
            if self.page.locator(NOTES).first.inner_text().strip():
                return seen
            self.page.wait_for_timeout(50)  # a sampling interval, not a wait for something to happen
        pytest.fail("the answer did not end in time")

    def shoot(self, name: str) -> None:
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"chat-{name}.png")

    def _requested(self, url: str, own: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("data", "blob") and parts.netloc != own:
            self.strangers.append(url)

    def _said(self, kind: str, text: str) -> None:
        if kind == "error":
            self.complaints.append(text)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGS)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    context = browser.new_context(viewport={"width": DESK[0], "height": DESK[1]})
    visit = Visit(context.new_page())
    visit.open()
    yield visit
    context.close()
    assert visit.strangers == []


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    image = Image.new("RGB", (320, 200), "white")
    ImageDraw.Draw(image).rectangle((60, 40, 260, 160), "teal")
    path = tmp_path / "box.png"
    image.save(path)
    return path


def test_a_picture_and_a_question_get_a_streamed_answer_that_names_its_engine(visit: Visit, picture: Path) -> None:
    visit.page.locator("#question input[type=file]").set_input_files(picture)
    expect(visit.page.locator("#question img")).to_be_visible()
    visit.ask("What is in this picture?")
    lengths = visit.lengths_while_streaming()
    assert len(lengths) >= 4, f"the answer did not grow step by step: {lengths}"
    assert lengths == sorted(lengths)
    line = visit.wait_for_note(0).inner_text()
    assert re.fullmatch(
        r"\S+ · \S+ · (fallback from \S+ · )?first token .+ · .+ in( \(\d+ cached\))? / \d+ out.*", line
    )
    expect(visit.page.locator(f"{QUESTIONS} img")).to_be_visible()
    visit.shoot("desk")

    visit.ask("And what colour is it?")
    expect(visit.wait_for_note(1)).to_contain_text(" out")
    assert visit.complaints == []


def test_stop_keeps_what_came_and_says_so(visit: Visit) -> None:
    visit.ask("Tell a very long story about a lighthouse.")
    expect(visit.page.locator(ANSWERS).last).to_have_text(re.compile(r"\S"), timeout=ANSWER_MS)
    visit.page.locator(STOP).click()
    expect(visit.wait_for_note(0)).to_have_text(re.compile(r"stopped\s*$"))


def test_an_unknown_model_is_explained_and_the_question_kept(visit: Visit) -> None:
    model = visit.page.get_by_role("combobox", name="Model")
    model.fill("no-such-model")
    model.press("Enter")
    visit.ask("Hello?")
    expect(visit.wait_for_note(0)).to_contain_text("Choose another model")
    expect(visit.page.locator("#question textarea")).to_have_value("Hello?")
    expect(visit.page.locator("#chat button[aria-label=Retry]")).to_be_visible()


def test_a_new_chat_is_empty_and_offers_samples(visit: Visit) -> None:
    visit.ask("Hello")
    visit.wait_for_note(0)
    visit.page.get_by_role("button", name="New chat").click()
    expect(visit.page.locator(QUESTIONS)).to_have_count(0)
    expect(visit.page.locator("#chat .example").first).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("device", "size"), [("desk", DESK), ("phone", PHONE)])
def test_the_page_fits_the_screen_and_every_control_has_a_name(
    browser: Browser, device: str, size: tuple[int, int], scheme: str
) -> None:
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme="dark" if scheme == "dark" else "light"
    )
    visit = Visit(context.new_page())
    visit.open()
    expect(visit.page.locator("#question textarea")).to_have_attribute("aria-label", "Your question")
    visit.shoot(f"{device}-{scheme}")
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= size[0]
    settings = visit.page.get_by_role("combobox", name="Model")
    expect(settings).to_be_visible(visible=device == "desk")
    if device == "phone":
        visit.page.get_by_role("button", name="Settings").click()
        expect(settings).to_be_visible()
        visit.shoot(f"{device}-{scheme}-settings")
    nameless = visit.page.evaluate(
        """() => [...document.querySelectorAll("button, input, textarea, [role=button]")]
            .filter((e) => e.offsetParent !== null && !e.getAttribute("aria-label") && !e.innerText?.trim()
                && !e.title && !e.labels?.length && !e.getAttribute("aria-labelledby"))
            .map((e) => e.outerHTML.slice(0, 200))"""
    )
    context.close()
    assert nameless == []
    assert visit.strangers == []
    assert visit.complaints == []
