"""A skipped test proves nothing: where MANYEYES_NO_SKIPS is set (`make test`), one skip fails the run."""

import os

import pytest


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:
        return
    skipped = reporter.stats.get("skipped", [])
    if os.environ.get("MANYEYES_NO_SKIPS") and skipped and exitstatus == pytest.ExitCode.OK:
        reporter.write_line(f"{len(skipped)} skipped, and MANYEYES_NO_SKIPS is set: this run proves less than it says")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
