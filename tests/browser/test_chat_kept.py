"""What a visitor does with a chat: several files, edit, delete, keep, save, bring back, code; and an engine that dies."""

import json
import re
from pathlib import Path

import httpx
from playwright.sync_api import Browser, expect

from manyeyes.devcluster.cluster import LocalCluster
from tests.browser.browser_session import ANSWERS, NOTES, QUESTIONS, Visit, download, visiting
from webui import samples

FLAGS = ("--start-seconds=0", "--ttft-ms=60", "--image-ms=10", "--tpot-ms=60", "--faults")


def attach(visit: Visit, *names: str) -> None:
    visit.page.locator("#question input[type=file]").set_input_files([samples.HERE / name for name in names])


def test_a_picture_a_video_and_a_pdf_are_priced_then_sent(visit: Visit) -> None:
    attach(visit, "receipt.png", "ball.webm", "letter.pdf")
    expect(visit.page.locator(".estimate")).to_contain_text(
        re.compile(
            r"≈ [\d ]+ vision tokens of 8 192 that fit.*receipt\.png 420 × 520.*frames of 6 s.*letter\.pdf 2 pages"
        )
    )
    visit.ask("What are these?")
    note = visit.wait_for_note(0)
    expect(note).to_contain_text("letter.pdf: 2 pages sent as images")
    expect(note).to_contain_text(re.compile(r"ball\.webm: \d+ of 72 frames"))
    expect(visit.page.locator(ANSWERS)).to_contain_text("You sent 3 images")
    expect(visit.page.locator(f"{QUESTIONS} img")).to_have_count(3)


def test_a_file_that_is_no_picture_is_told_before_and_after_and_the_question_is_kept(
    visit: Visit, tmp_path: Path
) -> None:
    (tmp_path / "cat.png").write_bytes(b"no picture at all")
    visit.page.locator("#question input[type=file]").set_input_files(tmp_path / "cat.png")
    expect(visit.page.locator(".estimate")).to_contain_text("cat.png is not an image")
    visit.ask("What is this?")
    expect(visit.wait_for_note(0)).to_contain_text("cat.png is not an image that can be read. Attach another file.")
    expect(visit.page.locator("#question textarea")).to_have_value("What is this?")


def test_a_question_is_edited_and_the_last_one_deleted(visit: Visit) -> None:
    visit.ask("One word")
    visit.wait_for_note(0)
    visit.ask("Another question of more words")
    visit.wait_for_note(1)
    chat = visit.page.locator("#chat")
    chat.get_by_label("Edit").first.click()
    chat.locator("textarea").first.fill("Three words now")
    chat.get_by_label("Submit").first.click()
    expect(visit.page.locator(QUESTIONS)).to_have_count(1)
    expect(visit.page.locator(ANSWERS).first).to_contain_text("3 words", timeout=20_000)
    visit.wait_for_note(0)
    visit.page.locator("#chat button[aria-label=Undo]").click()
    expect(visit.page.locator(QUESTIONS)).to_have_count(0)
    expect(visit.page.locator("#question textarea")).to_have_value("Three words now")


def test_chats_are_kept_by_the_browser_and_saved_and_brought_back(visit: Visit) -> None:
    attach(visit, "receipt.png")
    visit.ask("What was bought?")
    visit.wait_for_note(0)
    answer = visit.page.locator(ANSWERS).first.inner_text()
    page = visit.page
    as_markdown = download(page, page.get_by_role("button", name="Save as Markdown"))
    assert "What was bought?" in as_markdown.read_text()
    file = download(page, page.get_by_role("button", name="Save as JSON"))
    assert json.loads(file.read_text())["messages"][0]["files"][0]["name"] == "receipt.png"

    visit.open()  # another visit of the same browser
    expect(page.locator(QUESTIONS)).to_have_count(0)
    page.locator("#chat-list-items .name").filter(has_text="What was bought?").click()
    expect(page.locator(ANSWERS).first).to_have_text(answer)
    expect(page.locator(f"{QUESTIONS} img")).to_be_visible()
    visit.ask("And the total?")
    expect(visit.wait_for_note(1)).to_contain_text("out")
    expect(page.locator("#chat-list-items .name")).to_have_count(1)

    page.get_by_role("button", name="New chat").click()
    expect(page.locator(QUESTIONS)).to_have_count(0)
    chat = {"name": "chat.json", "mimeType": "application/json", "buffer": file.read_bytes()}
    page.locator("#chat-list input[type=file]").set_input_files(chat)  # type: ignore[arg-type]  # a FilePayload
    expect(page.locator(ANSWERS).first).to_have_text(answer)
    page.locator("#chat-list-items li").first.hover()
    page.locator("#chat-list-items .remove").first.click()
    expect(page.locator("#chat-list-items .name")).to_have_count(0)


def test_the_code_of_the_last_request_is_shown(visit: Visit) -> None:
    attach(visit, "receipt.png")
    visit.ask("What was bought?")
    visit.wait_for_note(0)
    visit.page.get_by_role("button", name="View code").click()
    code = visit.page.locator("#code")
    expect(code).to_contain_text("base64 -w0 receipt.png")
    expect(code).to_contain_text(f"{visit.url}/v1/chat/completions")
    visit.page.locator("#language").get_by_label("Python").click()
    expect(code).to_contain_text("from openai import OpenAI")
    visit.page.keyboard.press("Escape")
    expect(code).to_be_hidden()


def test_a_task_sets_the_sampling_and_the_system_prompt(visit: Visit) -> None:
    task = visit.page.get_by_role("combobox", name="Task")
    task.click()
    visit.page.get_by_role("option", name="Read text (OCR)").click()
    expect(visit.page.get_by_label("System prompt").first).to_have_value(re.compile("transcribe"))
    expect(visit.page.locator("#question textarea")).to_have_value("Transcribe all text in this image.")


def test_two_visits_at_once_get_each_their_own_answer(browser: Browser, running: LocalCluster) -> None:
    with visiting(browser, running.url) as one, visiting(browser, running.url) as two:
        one.ask("alpha")
        two.ask("beta gamma delta")
        expect(one.page.locator(ANSWERS)).to_contain_text("1 word", timeout=20_000)
        expect(two.page.locator(ANSWERS)).to_contain_text("3 words", timeout=20_000)
        one.wait_for_note(0)
        two.wait_for_note(0)
        assert (one.page.locator(QUESTIONS).count(), two.page.locator(QUESTIONS).count()) == (1, 1)
        expect(one.page.locator("#chat-list-items .name")).to_have_text(["alpha"])
        expect(two.page.locator("#chat-list-items .name")).to_have_text(["beta gamma delta"])


def test_an_answer_goes_on_when_its_engine_is_killed(visit: Visit, running: LocalCluster) -> None:
    """Last in this file: an engine is gone afterwards."""
    visit.ask("Tell a long story about a lighthouse, please")
    expect(visit.page.locator(ANSWERS).last).to_have_text(re.compile(r"\w+ \w+ \w+"), timeout=20_000)
    gauges = {name: _running(running, name) for name in ("gpu-0", "gpu-1")}
    answering = max(gauges, key=lambda name: gauges[name])
    running.kill(answering)
    note = visit.wait_for_note(0)
    expect(note).to_contain_text(f"continued after {answering} failed")
    expect(visit.page.locator(ANSWERS).last).to_contain_text(f"another engine continues, {answering} failed")
    expect(visit.page.locator(NOTES).last.locator("strong")).to_have_count(0)


def _running(running: LocalCluster, name: str) -> float:
    text = httpx.get(f"http://127.0.0.1:{running.ports[name]}/metrics").text
    return sum(
        float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith("vllm:num_requests_running{")
    )
