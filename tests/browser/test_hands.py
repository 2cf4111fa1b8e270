"""What hands do: Enter in an empty box, and taps on a phone, where a thing counts only if it lies on top at the tapped point."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from manyeyes.devcluster.cluster import LocalCluster
from manyeyes.devcluster.eventually import eventually
from tests.browser.browser_session import ANSWERS, PHONE, QUESTIONS, TABS, Visit, open_tab, shoot, visiting
from webui.i18n import ZH, load_translations

NO_COMPLAINTS = True
FLAGS = ("--start-seconds=0", "--ttft-ms=20", "--image-ms=5", "--tpot-ms=30")
ON_TOP = """(element, [x, y]) => {
    const top = document.elementFromPoint(x, y);
    return Boolean(top) && (element === top || element.contains(top));
}"""


@contextmanager
def on_a_phone(browser: Browser, url: str, width: int = PHONE[0]) -> Iterator[Page]:
    with visiting(browser, url, (width, PHONE[1]), has_touch=True, is_mobile=True) as visit:
        yield visit.page
        assert visit.complaints == []


def point_on_top(target: Locator) -> tuple[float, float] | None:
    """The middle of what is seen of it, if nothing lies over it there; the page is not scrolled for it."""
    box, screen = target.bounding_box(), target.page.viewport_size
    if not box or not screen:
        return None
    left, right = max(0, box["x"]), min(screen["width"], box["x"] + box["width"])
    top, bottom = max(0, box["y"]), min(screen["height"], box["y"] + box["height"])
    if right - left < min(box["width"], 12) or bottom - top < min(box["height"], 12):
        return None
    x, y = (left + right) / 2, (top + bottom) / 2
    return (x, y) if target.evaluate(ON_TOP, [x, y]) else None


def tap(target: Locator) -> None:
    point = eventually(lambda: point_on_top(target), 20, 0.1, f"{target} can be tapped")
    assert point
    target.page.touchscreen.tap(*point)


def tap_tab(page: Page, name: str) -> Locator:
    shown = page.locator("button[role=tab]:visible").get_by_text(name, exact=True)
    if shown.count() and point_on_top(shown.first):
        tap(shown.first)
    else:
        tap(page.locator(".overflow-menu > button"))
        tap(page.locator(".overflow-dropdown").get_by_text(name, exact=True))
    return page.locator("[role=tabpanel]:visible")


def inside(page: Page, target: Locator) -> bool:
    box, screen = target.bounding_box(), page.viewport_size
    return bool(
        box and screen and box["width"] > 0 and box["x"] >= 0 and box["x"] + box["width"] <= screen["width"] + 0.5
    )


def unchanged(panel: Locator, before: str) -> None:
    eventually(lambda: panel.inner_text() == before, 10, 0.1, f"the tab is as it was: {before}")


@pytest.mark.parametrize("width", [390, 360, 600, 700, 800])
def test_every_tab_is_opened_by_a_tap(browser: Browser, running: LocalCluster, width: int) -> None:
    with on_a_phone(browser, running.url, width) as page:
        for name in TABS:
            panel = tap_tab(page, name)
            expect(panel).to_have_count(1)
            expect(
                page.locator("button[role=tab][aria-selected=true]").get_by_text(name, exact=True).first
            ).to_be_attached()
            assert page.evaluate("document.documentElement.scrollWidth") <= width, name
            if width in (390, 360):
                shoot(page, f"hands-tab-{name.lower()}-{width}")


def test_every_tab_is_opened_by_a_tap_in_chinese(browser: Browser, running: LocalCluster) -> None:
    with on_a_phone(browser, f"{running.url}/zh/") as page:
        for name in map(load_translations(ZH).gettext, TABS):
            tap_tab(page, name)
            selected = page.locator("button[role=tab][aria-selected=true]").get_by_text(name, exact=True)
            expect(selected.first).to_be_attached()


@pytest.mark.parametrize("width", [390, 360, 800])
def test_the_settings_open_by_a_tap_offer_a_model_and_close(
    browser: Browser, running: LocalCluster, width: int
) -> None:
    with on_a_phone(browser, running.url, width) as page:
        tap(page.locator(".tools .side-toggle[data-side=chat-side]"))
        model = page.locator("#model input")
        tap(model)
        shoot(page, f"hands-settings-{width}")
        tap(page.get_by_role("option", name="qwen3-vl-4b", exact=True))
        expect(model).to_have_value("qwen3-vl-4b")
        for field in page.locator("#chat-side .block:visible").all():
            assert inside(page, field), field.inner_text()
        tap(page.locator("#chat-side .side-toggle"))
        expect(page.locator("#chat-side")).to_be_hidden()


@pytest.mark.parametrize("width", [390, 360])
@pytest.mark.parametrize(
    ("sheet", "inner"),
    [("chat-list", "#new-chat"), ("chat-code", "#language label >> nth=1"), ("chat-camera", "#snap")],
)
def test_every_sheet_opens_by_a_tap_shows_what_it_holds_and_closes(
    browser: Browser, running: LocalCluster, width: int, sheet: str, inner: str
) -> None:
    with on_a_phone(browser, running.url, width) as page:
        openers = {
            "chat-list": page.locator(".tools .side-toggle[data-side=chat-list]"),
            "chat-code": page.get_by_role("button", name="View code"),
            "chat-camera": page.get_by_role("button", name="Camera", exact=True),
        }
        assert inside(page, openers[sheet])
        tap(openers[sheet])
        shown = page.locator(f"#{sheet}")
        expect(shown).to_be_visible()
        assert eventually(lambda: point_on_top(page.locator(inner)), 20, 0.1, f"{inner} is seen in {sheet}")
        assert inside(page, shown)
        assert inside(page, page.locator(inner))
        shoot(page, f"hands-{sheet}-{width}")
        tap(shown.locator(".side-toggle"))
        expect(shown).to_be_hidden()


def test_a_long_title_in_the_list_of_chats_can_be_deleted(browser: Browser, running: LocalCluster) -> None:
    with on_a_phone(browser, running.url) as page:
        page.evaluate(
            """localStorage.setItem("manyeyes-chats", JSON.stringify([{id: "1", title: "W".repeat(46), messages: [{}]}]))"""
        )
        page.reload()
        tap(page.locator(".tools .side-toggle[data-side=chat-list]"))
        remove = page.locator("#chat-list-items .remove")
        expect(remove).to_have_count(1, timeout=20_000)
        assert inside(page, remove)
        shoot(page, "hands-long-title")
        tap(remove)
        expect(remove).to_have_count(0)


@pytest.mark.parametrize("keys", [["Enter"], [" ", " ", "Enter"], ["Enter", "Enter"]], ids=["Enter", "spaces", "twice"])
@pytest.mark.parametrize("path", ["/", "/zh/"])
def test_enter_in_an_empty_box_leaves_the_chat_as_it_is(
    browser: Browser, running: LocalCluster, path: str, keys: list[str]
) -> None:
    with visiting(browser, running.url + path) as visit:
        page = visit.page
        box = page.locator("#question textarea")
        box.click()
        page.keyboard.type("One two three")
        page.keyboard.press("Enter")
        visit.wait_for_note(0)
        answer = page.locator(ANSWERS).first.inner_text()
        with page.expect_response(lambda response: "queue/join" in response.url):
            for key in keys:
                page.keyboard.press(key)
        page.wait_for_load_state("domcontentloaded")
        page.keyboard.press("Control+A")
        page.keyboard.type("Four words to go")

        def asked() -> bool:
            if page.locator(QUESTIONS).count() == 1:
                page.keyboard.press("Enter")  # Gradio takes none while the one before is on its way
            return page.locator(QUESTIONS).count() == 2

        eventually(asked, 30, 0.3, "the next question is asked")
        visit.wait_for_note(1)
        expect(page.locator(QUESTIONS)).to_have_count(2)
        expect(page.locator(ANSWERS).first).to_have_text(answer)
        assert visit.complaints == []


def test_enter_while_an_answer_comes_keeps_the_answer_and_the_next_question(visit: Visit) -> None:
    page = visit.page
    page.locator("#question textarea").click()
    page.keyboard.type("Tell me a long story")
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    expect(page.locator(ANSWERS)).to_have_count(1)
    page.keyboard.type("And then")
    page.keyboard.press("Enter")
    visit.wait_for_note(0)
    expect(page.locator(QUESTIONS)).to_have_count(1)
    expect(page.locator("#question textarea")).to_have_value("And then")
    page.keyboard.press("Enter")
    visit.wait_for_note(1)
    expect(page.locator(QUESTIONS)).to_have_count(2)


def test_a_button_pressed_with_nothing_filled_in_changes_nothing_in_any_tab(visit: Visit) -> None:
    page = visit.page
    for tab, button, hint in (
        ("Documents", "Read", "Add images or a PDF first"),
        ("Documents", "Retry failed", "There are no failed pages"),
        ("Individual", "Run all", "Give at least one model"),
        ("Agent", "Next step", "Add a screenshot first"),
        ("Agent", "All steps", "Add a screenshot first"),
        ("Compare", "", "Choose at least two models and enter a question."),
        ("Fallback", "Run", "Write a prompt first."),
    ):
        panel = open_tab(page, tab)
        if tab == "Fallback":
            panel.get_by_label("Prompt", exact=True).fill("  ")
        before = panel.inner_text()
        if button:
            panel.get_by_role("button", name=button, exact=True).focus()
        else:
            panel.locator(".askbox textarea").click()
        page.keyboard.press("Enter")
        expect(page.get_by_text(hint).first).to_be_visible()
        unchanged(panel, before)
