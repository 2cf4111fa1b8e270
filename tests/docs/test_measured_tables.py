"""Tables of measurements are what the raw files beside them say."""

from pathlib import Path

from loadtest.calibrate import error
from loadtest.planner import against

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_planners_error_is_what_its_runs_say() -> None:
    lines = against.read(DOCS / "planner-error.jsonl")
    assert against.tables(lines) in (DOCS / "planner.md").read_text()
    assert against.worst(lines) < 0.10  # the promise for requests/s and P95


def test_the_emulators_error_is_what_its_run_says() -> None:
    assert error.tables(error.read(DOCS / "emulator-error.jsonl")) in (DOCS / "emulator.md").read_text()
