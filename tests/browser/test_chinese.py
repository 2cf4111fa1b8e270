"""The page in Chinese: chosen by the browser's language or by the link on the page, every tab of it, and what it says."""

import re

import pytest
from gradio_client import Client
from playwright.sync_api import Browser, expect

from manyeyes.devcluster.cluster import LocalCluster
from tests.browser.browser_session import DESK, PHONE, Visit, open_tab, shoot, visiting

TABS = ("对话", "文档", "对比", "回退", "分别提问", "智能体", "集群")

# What stays as it is: names of engines, models and formats, addresses, and what engines and the controller say themselves.
KEPT = r"""
    https?://\S+ | /\w+ | \S+\.(png|jpg|webm|pdf|json|yaml) | (gpu|cpu)-\d+ | qwen3-vl-\w+ | org/[\w-]+ | auto
    | ManyEyes | English | GPU | CPU | KV | JSON | CSV | Markdown | PDF | OCR | API | Grafana | Top-p | token | curl | Python
    | JavaScript | schema | common\.\w+ | (?:make|manyeyes)\ [a-z-]+ | p95 | ms | HTML | CSS | Northlight\ Roasters | kg | Enter | Shift | Esc
"""


def english_left(visit: Visit) -> list[str]:
    """Texts in sight, labels and placeholders with words of Latin letters that have no reason to be there."""
    found: list[str] = visit.page.evaluate(
        """() => {
            const seen = [];
            const walk = document.createTreeWalker(document.querySelector('gradio-app, .gradio-container'), NodeFilter.SHOW_TEXT);
            while (walk.nextNode()) {
                const at = walk.currentNode.parentElement;
                if (at.closest('script, style, .notice, .events, [data-testid=code], .cm-editor, small')) continue;
                if (at.checkVisibility({visibilityProperty: true})) seen.push(walk.currentNode.textContent.trim());
            }
            for (const one of document.querySelectorAll('input, textarea, button')) {
                if (!one.checkVisibility({visibilityProperty: true})) continue;
                seen.push(one.placeholder ?? '');
            }
            return seen.filter(Boolean);
        }"""
    )
    kept = re.compile(KEPT, re.VERBOSE)
    return sorted({text for text in found if re.search(r"[A-Za-z]{2,}", kept.sub("", text))})


@pytest.mark.parametrize(("device", "size"), [("desk", DESK), ("phone", PHONE)])
def test_no_tab_shows_english_to_a_browser_that_speaks_chinese(
    browser: Browser, running: LocalCluster, device: str, size: tuple[int, int]
) -> None:
    with visiting(browser, running.url, size, locale="zh-CN") as visit:
        assert visit.page.url.endswith("/zh/")
        left = {}
        for name in TABS:
            open_tab(visit.page, name)
            if name == "集群":
                expect(visit.page.locator("tr").filter(has_text="gpu-1")).to_contain_text("可用", timeout=15_000)
            shoot(visit.page, f"zh-{TABS.index(name)}-{device}")
            left[name] = english_left(visit)
            assert visit.page.evaluate("document.documentElement.scrollWidth") <= size[0], name
        assert left == {name: [] for name in TABS}
        assert visit.complaints == []


def test_an_answer_its_line_and_an_error_are_in_chinese(browser: Browser, running: LocalCluster) -> None:
    with visiting(browser, running.url, locale="zh-CN") as visit:
        visit.page.locator("#question textarea").fill("你好")
        visit.page.locator("#question .submit-button").click()
        expect(visit.wait_for_note(0)).to_contain_text("首个 token")
        model = visit.page.get_by_role("combobox", name="模型").first
        model.fill("no-such-model")
        model.press("Enter")
        visit.page.locator("#question textarea").fill("你好")
        visit.page.locator("#question .submit-button").click()
        expect(visit.wait_for_note(1)).to_contain_text("请在设置中选择其他模型，然后点击重试。")
        shoot(visit.page, "zh-answer")


def test_the_language_is_switched_on_the_page_and_remembered(visit: Visit) -> None:
    english, chinese = (visit.page.get_by_role("tab", name=name, exact=True) for name in ("Documents", "文档"))
    expect(english).to_be_visible()
    visit.page.get_by_role("link", name="中文").click()
    expect(chinese).to_be_visible()
    visit.open()
    expect(chinese).to_be_visible()
    visit.page.get_by_role("link", name="English").click()
    expect(english).to_be_visible()


def test_programs_choose_the_language_by_the_address(running: LocalCluster) -> None:
    english, chinese = Client(running.url, verbose=False), Client(f"{running.url}/zh/", verbose=False)
    assert "Choose another model" in english.predict("hi", [], "no-such-model", api_name="/chat")["error"]
    assert "请在设置中选择其他模型" in chinese.predict("hi", [], "no-such-model", api_name="/chat")["error"]
