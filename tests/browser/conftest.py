"""One Chromium and one cluster for the tests of a file; and Grafana's tests only where it runs, because a skip counts as a failure in `make test`.

What a file says of itself: URL (a running page), else FLAGS (of the engines) and ADMIN_KEY (of the controller) of the cluster that is
started for it; NO_COMPLAINTS where nothing may be in the browser's console after a visit.
"""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from manyeyes.devcluster.cluster import QUICK, LocalCluster
from tests.browser import grafana
from tests.browser.browser_session import Visit, chromium, visiting
from tests.browser.webui_cluster import page_stand

GRAFANA_RUNS = grafana.runs()
collect_ignore = [] if GRAFANA_RUNS else ["test_grafana.py"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if grafana.GATEWAY and not GRAFANA_RUNS:
        terminalreporter.write_line("GRAFANA DOES NOT RUN: its dashboards were not opened in a browser", yellow=True)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    flags, key = getattr(request.module, "FLAGS", QUICK), getattr(request.module, "ADMIN_KEY", "")
    with page_stand(tmp_path_factory.mktemp("stand"), flags, key) as parts:
        yield parts


@pytest.fixture
def url(request: pytest.FixtureRequest) -> str:
    return str(getattr(request.module, "URL", "") or request.getfixturevalue("running").url)


@pytest.fixture
def visit(request: pytest.FixtureRequest, browser: Browser, url: str) -> Iterator[Visit]:
    with visiting(browser, url) as opened:
        yield opened
        assert not getattr(request.module, "NO_COMPLAINTS", False) or opened.complaints == []
