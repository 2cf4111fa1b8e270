"""The page against real vLLM on CPU (random weights), in the running cluster: MANYEYES_URL is its address.

What random weights answer means nothing; that they are asked, stream, obey a schema and go on after a death does.
"""

import json
import os
import re
import subprocess

import httpx
import pytest
from gradio_client import Client
from playwright.sync_api import expect

from manyeyes.devcluster.eventually import eventually
from tests.browser.browser_session import ANSWER_MS, ANSWERS, Visit, download, open_tab, shoot
from webui import samples

URL = os.environ.get("MANYEYES_URL", "")
PROJECT = os.environ.get("MANYEYES_TEST_PROJECT", "manyeyes-test")
MODEL = "qwen3-vl-tiny"
ENGINES = ("cpu-0", "cpu-1")
SCHEMA = {
    "type": "object",
    "properties": {"kind": {"enum": ["receipt", "letter"]}, "paid": {"type": "boolean"}},
    "required": ["kind", "paid"],
    "additionalProperties": False,
}

pytestmark = pytest.mark.skipif(not URL, reason="MANYEYES_URL is not set: no running cluster")


def docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True).stdout.strip()


def asked(engine: str) -> float:
    """Requests in the engine at the moment."""
    form = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"
    for address in docker("inspect", "-f", form, f"{PROJECT}-{engine}-1").split():
        text = httpx.get(f"http://{address}:8000/metrics", timeout=5).text
        found = re.findall(r"^vllm:num_requests_running\{[^}]*\} ([0-9.]+)", text, re.MULTILINE)
        return sum(map(float, found))
    return 0.0


def both_up() -> bool:
    pools = httpx.get(f"{URL}/healthz", timeout=5).json()["pools"]
    return {one["name"] for pool in pools for one in pool["engines"] if one["state"] == "up"} == set(ENGINES)


def test_a_video_is_sent_as_a_clip_and_answered(visit: Visit) -> None:
    visit.page.locator("#question input[type=file]").set_input_files(samples.HERE / "ball.webm")
    expect(visit.page.locator(".estimate")).to_contain_text("frames of 6 s")
    visit.ask("What happens?")
    note = visit.wait_for_note(0)
    expect(note).to_contain_text(re.compile(r"cpu-\d · qwen3-vl-tiny"))
    expect(note).to_contain_text(re.compile(r"ball\.webm: \d+ of 72 frames"))
    expect(note.locator("strong")).to_have_count(0)


def test_documents_get_the_fields_of_a_schema(visit: Visit) -> None:
    panel = visit.page.locator("[role=tabpanel]:visible")
    open_tab(visit.page, "Documents")
    panel.locator("input[type=file]").first.set_input_files([samples.HERE / "receipt.png", samples.HERE / "letter.pdf"])
    expect(panel.get_by_role("row", name="letter.pdf")).to_be_visible()
    panel.get_by_role("button", name="JSON schema").click()
    panel.locator(".cm-content").first.fill(json.dumps(SCHEMA))
    panel.get_by_role("button", name="Read", exact=True).click()
    # Whole JSON of every page in one try: the schema has no text or number without an end, and engines write no blanks.
    expect(panel.get_by_text(re.compile(r"pages/s.*by|failed: press")).first).to_be_visible(timeout=ANSWER_MS)
    expect(panel.get_by_text("3 of 3 pages read")).to_be_visible()
    pages = json.loads(download(visit.page, panel.get_by_role("button", name="Save JSON")).read_text())["pages"]
    assert len(pages) == 3
    assert all(set(page["fields"]) == {"kind", "paid"} for page in pages)
    assert all(page["fields"]["kind"] in ("receipt", "letter") for page in pages)


def test_the_other_tabs_are_answered(visit: Visit) -> None:
    panel = visit.page.locator("[role=tabpanel]:visible")
    open_tab(visit.page, "Fallback")
    panel.get_by_label("Primary with a wrong address").click()
    panel.get_by_role("button", name="Run", exact=True).click()
    expect(panel.get_by_text("Answered by Fallback.")).to_be_visible(timeout=ANSWER_MS)
    open_tab(visit.page, "Individual")
    panel.get_by_role("button", name="Use the samples").click()
    expect(panel.get_by_role("row", name="chart.png")).to_be_visible()
    panel.get_by_role("button", name="Run all").click()
    expect(panel.get_by_text("All 3 together took")).to_be_visible(timeout=ANSWER_MS)
    open_tab(visit.page, "Agent")
    panel.get_by_role("button", name="Use the samples").click()
    expect(panel.get_by_role("row", name="screen-2.png")).to_be_visible()
    panel.get_by_role("button", name="Next step").click()
    expect(panel.locator(".attempts li span")).to_contain_text("tokens/s", timeout=ANSWER_MS)
    open_tab(visit.page, "Cluster")
    for engine in ENGINES:
        expect(panel.locator("tr").filter(has_text=engine)).to_contain_text("up", timeout=15_000)
    compared = Client(URL, verbose=False).predict("Hello", [MODEL, "default"], api_name="/compare")
    assert [answer["error"] for answer in compared["answers"]] == [None, None]


def test_an_answer_goes_on_when_the_container_of_its_engine_is_killed(visit: Visit) -> None:
    """Last in this file: an engine starts again afterwards."""
    eventually(both_up, 90, 0.5, "both engines are up")
    # At temperature 0 random weights repeat themselves for long.
    for slider, value in (("Max tokens", "2048"), ("Temperature", "0")):
        number = visit.page.get_by_label(f"number input for {slider}").first
        number.fill(value)
        number.press("Enter")
    killed = ""
    for nth in range(8):
        if nth:
            visit.page.get_by_role("button", name="New chat").click()
            expect(visit.page.locator(ANSWERS)).to_have_count(0)
        visit.ask(f"Tell a long story about {nth + 2} lighthouses and their keepers")
        expect(visit.page.locator(ANSWERS).last).to_have_text(re.compile(r"\S"), timeout=ANSWER_MS)
        at_work = [engine for engine in ENGINES if asked(engine) >= 1]
        if len(at_work) == 1:
            [killed] = at_work
            break
        visit.wait_for_note(0)
    assert killed, "no answer was long enough to be cut"
    docker("kill", f"{PROJECT}-{killed}-1")
    try:
        note = visit.wait_for_note(0)
        expect(note).to_contain_text(f"continued after {killed} failed")
        expect(note.locator("strong")).to_have_count(0)
        expect(visit.page.locator(ANSWERS).last).to_contain_text(f"another engine continues, {killed} failed")
        shoot(visit.page, "went-on")
    finally:
        docker("start", f"{PROJECT}-{killed}-1")
