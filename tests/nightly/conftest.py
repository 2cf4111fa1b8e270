"""The nightly suite holds the promised times, and `make test-nightly` writes its result down (MANYEYES_NIGHTLY_RESULT: the page)."""

import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.integration import membership

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def promised_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "HOLD_PROMISED_TIMES", True)


def commit() -> str:
    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    # The page that this run writes is no change of what it tested.
    changed = git("status", "--porcelain", "--", ".", ":!docs/benchmarks/nightly.md")
    return git("rev-parse", "--short", "HEAD") + (" with uncommitted changes" if changed else "")


def page(reports: list[pytest.TestReport]) -> str:
    lines = [
        "# Nightly tests",
        "",
        "Written by `make test-nightly`, the last time that it ran to its end. Promised times are held as they are promised; no test is repeated.",
        "",
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, commit {commit()}, {os.cpu_count()} CPU cores: "
        + ", ".join(f"{sum(one.outcome == end for one in reports)} {end}" for end in ("passed", "failed", "skipped"))
        + ".",
        "",
        "| test | result | seconds |",
        "|---|---|---|",
        *(f"| `{one.nodeid.removeprefix('tests/nightly/')}` | {one.outcome} | {one.duration:.0f} |" for one in reports),
        "",
    ]
    return "\n".join(lines)


class Recorder:
    """One report for each test: of its call, or of the setup that failed or skipped."""

    def __init__(self, result: Path) -> None:
        self.result = result
        self.reports: dict[str, pytest.TestReport] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            self.reports[report.nodeid] = report

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        if exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            self.result.write_text(page(list(self.reports.values())))


def pytest_configure(config: pytest.Config) -> None:
    if result := os.environ.get("MANYEYES_NIGHTLY_RESULT"):
        config.pluginmanager.register(Recorder(ROOT / result))
