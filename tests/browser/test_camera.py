"""A picture from the camera, which Chromium pretends to have."""

from pathlib import Path

from playwright.sync_api import expect

from tests.browser.browser_session import ANSWERS, QUESTIONS, chromium, visiting
from tests.browser.webui_cluster import page_stand

PRETEND = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")


def test_a_picture_from_the_camera_is_attached_priced_and_sent(tmp_path: Path) -> None:
    with (
        page_stand(tmp_path) as running,
        chromium(*PRETEND) as browser,
        visiting(browser, running.url, permissions=["camera"], base_url=running.url) as visit,
    ):
        page = visit.page
        page.get_by_role("button", name="Camera", exact=True).click()
        sheet = page.locator("#chat-camera")
        sheet.get_by_text("Click to Access Webcam").click()
        page.wait_for_function(
            "() => { const video = document.querySelector('#chat-camera video');"
            " return video?.readyState >= 2 && video.videoWidth > 0; }"
        )
        sheet.locator("button[aria-label='capture photo'], button[aria-label='Capture photo']").click(timeout=20_000)
        expect(sheet).to_be_hidden(timeout=20_000)
        expect(page.locator(".estimate")).to_contain_text("vision tokens")
        visit.ask("What does the camera see?")
        expect(page.locator(ANSWERS)).to_contain_text("You sent 1 image", timeout=20_000)
        visit.wait_for_note(0)
        expect(page.locator(f"{QUESTIONS} img")).to_be_visible()
        assert visit.complaints == []
