"""Makes the pictures of the page in docs/images again: `.venv/bin/python -m tests.browser.document_pictures`.

The page runs behind the real nginx with emulated engines. Needs Chromium, and a font with Chinese characters
(Debian: fonts-noto-cjk).
"""

import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, expect

from tests.browser.browser_session import PHONE, Visit, chromium, open_tab, visiting
from tests.browser.webui_cluster import CALM, page_stand

IMAGES = Path("docs/images")
SIZE = (1280, 860)
GAP = 16
ADMIN_KEY = "an-admin-key-for-the-pictures"
RECEIPT = "What was bought, and what is the total? Answer as a table."


def shot(page: Page, folder: Path, name: str) -> Image.Image:
    page.wait_for_timeout(600)  # animations end
    path = folder / f"{name}.png"
    page.screenshot(path=path)
    return Image.open(path).convert("RGB")


def save(image: Image.Image, name: str) -> None:
    image.save(IMAGES / f"{name}.webp", quality=80, method=6)
    print(f"docs/images/{name}.webp {image.size[0]} x {image.size[1]}", flush=True)


def side_by_side(images: list[Image.Image], background: str) -> Image.Image:
    height = max(image.height for image in images)
    width = sum(image.width for image in images) + GAP * (len(images) - 1)
    whole = Image.new("RGB", (width, height), background)
    at = 0
    for image in images:
        whole.paste(image, (at, 0))
        at += image.width + GAP
    return whole


def chat(visit: Visit, receipt: str) -> None:
    visit.page.get_by_role("button", name=receipt).first.click()
    visit.page.locator("#question button[aria-label=Submit], #question button[aria-label=提交]").first.click()
    visit.wait_for_note(0)


def documents(page: Page) -> None:
    panel = open_tab(page, "Documents")
    panel.get_by_role("button", name="Use the samples").click()
    expect(panel.get_by_role("row", name="letter.pdf")).to_be_visible()
    panel.get_by_role("button", name="Read", exact=True).click()
    expect(panel.get_by_text("4 of 4 pages read")).to_be_visible(timeout=30_000)


def compare(page: Page) -> None:
    panel = open_tab(page, "Compare")
    panel.get_by_role("button", name="Use a sample").click()
    panel.locator(".askbox button[aria-label=Submit]").click()
    expect(panel.get_by_text("one after the other")).to_be_visible(timeout=30_000)


def fallback(page: Page) -> None:
    panel = open_tab(page, "Fallback")
    panel.get_by_role("button", name="Check both").click()
    expect(panel.locator(".seen.up")).to_have_count(2)
    panel.get_by_label("Primary with a wrong address").click()
    panel.get_by_role("button", name="Run", exact=True).click()
    expect(panel.get_by_text("Answered by Fallback.")).to_be_visible(timeout=30_000)


def individual(page: Page) -> None:
    panel = open_tab(page, "Individual")
    panel.get_by_role("button", name="Use the samples").click()
    expect(panel.get_by_role("row", name="chart.png")).to_be_visible()
    panel.get_by_role("button", name="Run all").click()
    expect(panel.get_by_text("All 3 together took")).to_be_visible(timeout=30_000)


def agent(page: Page) -> None:
    panel = open_tab(page, "Agent")
    panel.get_by_role("button", name="Use the samples").click()
    expect(panel.get_by_role("row", name="screen-2.png")).to_be_visible()
    for step in range(2):
        panel.get_by_role("button", name="Next step").click()
        expect(panel.locator(".attempts li").nth(step)).to_contain_text("click at", timeout=30_000)


def cluster(page: Page) -> None:
    panel = open_tab(page, "Cluster")
    expect(panel.locator("tr").filter(has_text="gpu-1")).to_contain_text("up", timeout=15_000)


TABS = {
    "documents": documents,
    "compare": compare,
    "fallback": fallback,
    "individual": individual,
    "agent": agent,
    "cluster": cluster,
}


def main() -> None:
    with (
        tempfile.TemporaryDirectory() as name,
        page_stand(Path(name), CALM, ADMIN_KEY) as running,
        chromium() as browser,
    ):
        folder = Path(name)
        for scheme, picture in (("light", "chat"), ("dark", "dark")):
            with visiting(browser, running.url, SIZE, color_scheme=scheme) as visit:
                chat(visit, "Read a receipt")
                image = shot(visit.page, folder, picture)
                save(image, f"page-{picture}")
                if scheme == "light":
                    image.quantize(256).save(IMAGES / "page.png", optimize=True)
                    for tab, prepare in TABS.items():
                        prepare(visit.page)
                        save(shot(visit.page, folder, tab), f"page-{tab}")
        phones = []
        for tab in ("chat", "documents", "compare", "cluster"):
            with visiting(browser, running.url, PHONE) as visit:
                if tab == "chat":
                    chat(visit, "Read a receipt")
                else:
                    TABS[tab](visit.page)
                phones.append(shot(visit.page, folder, f"phone-{tab}"))
        save(side_by_side(phones, "white"), "page-phone")
        with visiting(browser, f"{running.url}/zh/", SIZE) as visit:
            chat(visit, "读小票")
            desk = shot(visit.page, folder, "zh")
        with visiting(browser, f"{running.url}/zh/", PHONE, color_scheme="dark") as visit:
            phone = shot(visit.page, folder, "zh-phone")
        save(side_by_side([desk, phone], "white"), "page-zh")


if __name__ == "__main__":
    main()
