"""Title and greeting of the page follow cluster.yaml from one visit to the next, without a restart."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from playwright.sync_api import expect

from manyeyes.devcluster.cluster import LocalCluster, local_cluster
from tests.browser.browser_session import Visit


@pytest.fixture
def running(tmp_path: Path) -> Iterator[LocalCluster]:
    document = {
        "pools": [{"name": "big", "model": "org/Big-VL"}],
        "engines": [{"name": "big-0", "pool": "big"}],
        "webui": {"title": "Our eyes", "greeting": "Good morning."},
    }
    with local_cluster(tmp_path, document) as parts:
        parts.answers_from("big", {"big-0"})
        yield parts


@pytest.fixture
def url(running: LocalCluster) -> str:
    running.start_page()
    return running.page_url


def test_the_next_visit_shows_the_texts_of_the_file(running: LocalCluster, visit: Visit) -> None:
    expect(visit.page.locator("#brand h1")).to_have_text("Our eyes")
    expect(visit.page.get_by_text("Good morning.")).to_be_visible()
    running.configure({**running.document, "webui": {"title": "Other eyes", "greeting": "Good evening."}})
    visit.open()
    expect(visit.page.locator("#brand h1")).to_have_text("Other eyes")
    expect(visit.page.get_by_text("Good evening.")).to_be_visible()
    expect(visit.page).to_have_title("Other eyes")
    (running.folder / "cluster.yaml").write_text(yaml.safe_dump({"webui": 3}))
    visit.open()
    expect(visit.page.locator("#brand h1")).to_have_text("Other eyes")
    assert visit.complaints == []
