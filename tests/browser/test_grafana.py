"""Each dashboard in Grafana itself: its panels show something, and none complains. Collected only where Grafana runs (conftest.py).

It needs somebody who may look: GRAFANA_ANONYMOUS=true when the cluster is started, as tests/run does.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from manyeyes.monitoring.grafana import build
from tests.browser.browser_session import shoot
from tests.browser.grafana import GATEWAY, has_gpus

DASHBOARDS = sorted(file for file in build.FOLDER.glob("*.json") if file.stem != "gpu" or has_gpus())
# Of Grafana's own end-to-end tests: https://www.npmjs.com/package/@grafana/e2e-selectors, 12.3.0
HEADER = "[data-testid='data-testid Panel header {title}']"
NO_DATA = "[data-testid='data-testid Panel data error message']"
ERROR = "[data-testid='data-testid Panel status error']"
LOADED_MS = 60_000


@pytest.fixture
def page(browser: Browser) -> Page:
    """High enough that every panel is in view: Grafana draws no others."""
    return browser.new_page(viewport={"width": 1600, "height": 4200})


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_a_dashboard_has_no_empty_panel_and_no_error(file: Path, page: Page) -> None:
    document: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    page.goto(f"{GATEWAY}/grafana/d/{document['uid']}?from=now-15m&to=now&kiosk")
    for panel in document["panels"]:
        if panel["type"] != "row":
            expect(page.locator(HEADER.format(title=panel["title"]))).to_be_visible(timeout=LOADED_MS)
    expect(page.locator("[aria-label='Panel loading bar']")).to_have_count(0, timeout=LOADED_MS)
    shoot(page, f"grafana-{file.stem}")
    expect(page.locator(ERROR)).to_have_count(0)
    expect(page.locator(NO_DATA)).to_have_count(0)
