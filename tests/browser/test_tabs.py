"""Every tab's main path in a real browser, through the real nginx, against emulated engines as processes."""

import csv
import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from manyeyes.devcluster.cluster import LocalCluster
from manyeyes.devcluster.eventually import eventually
from tests.browser.browser_session import DESK, PHONE, TABS, Visit, download, open_tab, shoot, visiting

NO_COMPLAINTS = True
FLAGS = ("--start-seconds=0", "--ttft-ms=60", "--image-ms=10", "--tpot-ms=12", "--faults")
ADMIN_KEY = "an-admin-key-for-these-tests"


def saved(page: Page, panel: Locator, name: str) -> Path:
    return download(page, panel.get_by_role("button", name=name, exact=True))


def test_documents_reads_the_samples_and_saves_them(visit: Visit) -> None:
    panel = open_tab(visit.page, "Documents")
    expect(panel.get_by_text("Add images or a PDF")).to_be_visible()
    panel.get_by_role("button", name="Use the samples").click()
    expect(panel.get_by_role("row", name="letter.pdf")).to_be_visible()
    panel.get_by_role("button", name="Read", exact=True).click()
    expect(panel.get_by_text("4 of 4 pages read")).to_be_visible(timeout=30_000)
    shoot(visit.page, "tab-documents")
    with saved(visit.page, panel, "Save CSV").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["receipt.png", "chart.png", "letter.pdf, page 1", "letter.pdf, page 2"]
    assert all("emulated" in row["text"] for row in rows)
    assert len(json.loads(saved(visit.page, panel, "Save JSON").read_text())["pages"]) == 4
    assert "## letter.pdf, page 2" in saved(visit.page, panel, "Save Markdown").read_text()


def test_compare_shows_two_answers_and_keeps_the_vote(visit: Visit) -> None:
    panel = open_tab(visit.page, "Compare")
    panel.get_by_role("button", name="Use a sample").click()
    expect(panel.locator("textarea").first).to_have_value(re.compile("What was bought"))
    panel.locator(".askbox button[aria-label=Submit]").click()
    expect(panel.get_by_text("one after the other")).to_be_visible(timeout=30_000)
    expect(panel.locator(".lane:visible h4")).to_have_count(2)
    panel.get_by_label("qwen3-vl-4b", exact=True).last.click()
    expect(panel.get_by_text("1 vote: qwen3-vl-4b 1")).to_be_visible()
    shoot(visit.page, "tab-compare")
    kept = json.loads(saved(visit.page, panel, "Save JSON").read_text())["comparisons"]
    assert (len(kept), kept[0]["vote"], len(kept[0]["answers"])) == (1, "qwen3-vl-4b", 2)
    visit.open()
    panel = open_tab(visit.page, "Compare")
    assert len(json.loads(saved(visit.page, panel, "Save JSON").read_text())["comparisons"]) == 1


def test_fallback_shows_the_failed_attempt_and_who_answered(visit: Visit) -> None:
    panel = open_tab(visit.page, "Fallback")
    panel.get_by_role("button", name="Check both").click()
    expect(panel.locator(".seen.up")).to_have_count(2)
    panel.get_by_label("Primary with a wrong address").click()
    panel.get_by_role("button", name="Run", exact=True).click()
    expect(panel.get_by_text("Answered by Fallback.")).to_be_visible(timeout=30_000)
    expect(panel.locator(".attempts li.failed")).to_contain_text("http://127.0.0.1:9/v1 cannot be reached")
    expect(panel.locator(".attempts li.done")).to_contain_text("gpu-2")
    shoot(visit.page, "tab-fallback")


def test_individual_runs_each_prompt_on_its_model(visit: Visit) -> None:
    panel = open_tab(visit.page, "Individual")
    panel.get_by_role("button", name="Use the samples").click()
    expect(panel.get_by_role("row", name="chart.png")).to_be_visible()
    panel.get_by_role("button", name="Run all").click()
    expect(panel.get_by_text("All 3 together took")).to_be_visible(timeout=30_000)
    for size in ("420 x 520", "560 x 400"):
        expect(panel.get_by_text(size).first).to_be_visible()
    shoot(visit.page, "tab-individual")


def test_agent_walks_through_screenshots_and_draws_what_it_found(visit: Visit) -> None:
    panel = open_tab(visit.page, "Agent")
    panel.get_by_role("button", name="Use the samples").click()
    expect(panel.get_by_role("row", name="screen-2.png")).to_be_visible()
    panel.get_by_role("button", name="Next step").click()
    expect(panel.locator(".attempts li")).to_have_count(1, timeout=30_000)
    expect(panel.locator(".attempts li")).to_contain_text("click at", timeout=30_000)
    panel.get_by_role("button", name="Next step").click()
    expect(panel.locator(".attempts li").nth(1)).to_contain_text("click at", timeout=30_000)
    expect(panel.locator("img").last).to_be_visible()
    shoot(visit.page, "tab-agent")


def test_cluster_shows_engines_live_and_drains_one_with_the_key(visit: Visit) -> None:
    panel = open_tab(visit.page, "Cluster")
    row = panel.locator("tr").filter(has_text="gpu-1")
    expect(row).to_contain_text("up", timeout=15_000)
    expect(panel.get_by_text("The load test is not running.")).to_be_visible(timeout=15_000)
    engine = panel.get_by_role("combobox", name="Engine")
    expect(engine).to_have_value("gpu-0")
    engine.fill("gpu-1")
    engine.press("Enter")
    panel.get_by_role("button", name="Drain").click()
    expect(panel.get_by_text("This action requires the admin key.")).to_be_visible()
    panel.locator("#admin-key input").fill(ADMIN_KEY)
    panel.get_by_role("button", name="Drain").click()
    expect(row).to_contain_text("draining", timeout=15_000)
    shoot(visit.page, "tab-cluster")
    panel.get_by_role("button", name="Resume").click()
    expect(row).to_contain_text("up", timeout=15_000)
    assert ADMIN_KEY not in visit.page.evaluate("JSON.stringify({...localStorage, ...sessionStorage})")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("device", "size"), [("desk", DESK), ("phone", PHONE)])
def test_every_tab_fits_the_screen_and_every_control_has_a_name(
    browser: Browser, running: LocalCluster, device: str, size: tuple[int, int], scheme: str
) -> None:
    with visiting(browser, running.url, size, color_scheme=scheme) as visit:
        for name in TABS:
            panel = open_tab(visit.page, name)
            expect(panel).to_be_visible()
            if name == "Cluster":
                expect(panel.locator("tr").filter(has_text="gpu-1")).to_be_visible(timeout=15_000)
            shoot(visit.page, f"tab-{name.lower()}-{device}-{scheme}")
            assert visit.page.evaluate("document.documentElement.scrollWidth") <= size[0], name
            eventually(lambda: visit.nameless() == [], 5, 0.2, f"every control of {name} has a name")
        assert visit.complaints == []


def test_tabs_are_reached_by_keyboard(visit: Visit) -> None:
    visit.page.get_by_role("tab", name="Chat", exact=True).focus()
    visit.page.keyboard.press("Tab")
    visit.page.keyboard.press("Enter")
    expect(visit.page.get_by_role("tab", name="Documents", exact=True)).to_have_attribute("aria-selected", "true")
