"""Tables of measurements are what the raw files beside them say."""

import re
from pathlib import Path

from manyeyes.calibration import emulator_validation
from manyeyes.monitoring.prometheus.alerts import ALERTS
from manyeyes.planner import plan_validation
from tests.alert_drill import table
from tests.alert_drill.faults import FAULTS

DOCS = Path(__file__).resolve().parents[2] / "docs/benchmarks"


def test_the_planners_error_is_what_its_runs_say() -> None:
    lines = plan_validation.read(DOCS / "planner-error.jsonl")
    assert plan_validation.tables(lines) in (DOCS / "planner.md").read_text()


def test_the_emulators_error_is_what_its_run_says() -> None:
    assert (
        emulator_validation.tables(emulator_validation.read(DOCS / "emulator-error.jsonl"))
        in (DOCS / "emulator.md").read_text()
    )


def test_the_drills_table_is_what_its_run_says_and_every_alert_is_in_it_or_said_to_be_missing() -> None:
    page = (DOCS / "alert-drill.md").read_text()
    lines = table.read()
    assert table.rows(lines) in page
    assert [line["fault"] for line in lines] == [fault.name for fault in FAULTS]
    for line, fault in zip(lines, FAULTS, strict=True):
        assert {other.split()[0] for other in line["others"]} <= fault.may
    drilled = {alert.split()[0] for line in lines for alert in line["raised_s"]}
    missing = set(re.findall(r"`([A-Z]\w+)`", page.partition("## Not drilled")[2]))
    assert drilled | missing == {alert.name for alert in ALERTS}
    assert not drilled & missing
