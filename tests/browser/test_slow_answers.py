"""Streaming and Stop in a real browser, against a slow emulated engine: a fast one is done before a finger moves."""

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect

from manyeyes.devcluster.cluster import LocalCluster, local_cluster
from manyeyes.devcluster.eventually import eventually
from tests.browser.browser_session import ANSWER_MS, ANSWERS, STOP, Visit


@pytest.fixture
def running(tmp_path: Path) -> Iterator[LocalCluster]:
    document = {
        "pools": [{"name": "slow", "model": "org/Slow-VL"}],
        "engines": [{"name": "late-0", "pool": "slow"}],
    }
    with local_cluster(tmp_path, document) as parts:
        parts.start_engine("late-0", "--tpot-ms=200")
        parts.answers_from("slow", {"late-0"}, within_s=30)
        yield parts


@pytest.fixture
def url(running: LocalCluster) -> str:
    running.start_page()
    return running.page_url


def test_an_answer_grows_word_by_word(visit: Visit) -> None:
    visit.watch_growth()
    visit.ask("Hello")
    visit.wait_for_note(0)
    lengths = visit.growth()
    assert len(lengths) >= 10, lengths  # a word every 200 ms
    assert lengths == sorted(lengths)


def test_stop_keeps_what_came_says_so_and_frees_the_engine(visit: Visit, running: LocalCluster) -> None:
    visit.ask("Tell a very long story about a lighthouse.")
    expect(visit.page.locator(ANSWERS).last).to_have_text(re.compile(r"\S"), timeout=ANSWER_MS)
    visit.page.locator(STOP).click()
    expect(visit.wait_for_note(0)).to_have_text(re.compile(r"stopped · request \w+\s*$"))
    metrics = f"http://127.0.0.1:{running.ports['late-0']}/metrics"
    eventually(lambda: 'num_requests_running{engine="0",model_name="slow"} 0.0' in httpx.get(metrics).text, 10)
