"""The Chat tab in a real browser, against a running page: MANYEYES_URL=http://localhost:8080 pytest tests/browser"""

import os
import re
from pathlib import Path

import pytest
from PIL import Image, ImageDraw
from playwright.sync_api import expect

from tests.browser.browser_session import QUESTIONS, Visit, shoot

URL = os.environ.get("MANYEYES_URL", "")

pytestmark = pytest.mark.skipif(not URL, reason="MANYEYES_URL is not set: no running page to open")


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    image = Image.new("RGB", (320, 200), "white")
    ImageDraw.Draw(image).rectangle((60, 40, 260, 160), "teal")
    path = tmp_path / "box.png"
    image.save(path)
    return path


def test_a_picture_and_a_question_get_a_streamed_answer_that_names_its_engine(visit: Visit, picture: Path) -> None:
    grown: list[list[int]] = []
    # Random weights end an answer wherever they like, a short one before it is drawn twice.
    while len(grown) < 8 and not any(len(lengths) >= 3 for lengths in grown):
        if grown:
            visit.open()
        visit.page.locator("#question input[type=file]").set_input_files(picture)
        expect(visit.page.locator("#question img")).to_be_visible()
        visit.watch_growth()
        visit.ask("What is in this picture?")
        visit.wait_for_note(0)
        grown.append(visit.growth())
    assert len(grown[-1]) >= 3, f"no answer grew step by step: {grown}"
    line = visit.wait_for_note(0).inner_text()
    assert re.fullmatch(r"\S+ · \S+ · (fallback from \S+ · )?first token .+ · .+ in( \(.+\))? / \d+ out.*", line)
    expect(visit.page.locator(f"{QUESTIONS} img")).to_be_visible()
    shoot(visit.page, "chat-desk")

    visit.ask("And what colour is it?")
    expect(visit.wait_for_note(1)).to_contain_text(" out")
    assert visit.complaints == []


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
