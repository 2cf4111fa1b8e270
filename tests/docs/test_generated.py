"""Documents made from code are up to date."""

from pathlib import Path

from manyeyes.cli import cli_reference
from manyeyes.config.cluster import json_schema, markdown
from manyeyes.controller import metrics
from manyeyes.monitoring.prometheus import rules

ROOT = Path(__file__).resolve().parents[2]


def test_the_configuration_page_is_what_the_schema_says() -> None:
    assert (ROOT / "docs/reference/configuration.md").read_text() == markdown(), "`make docs`"


def test_the_json_schema_is_what_the_schema_says() -> None:
    assert (ROOT / "config/cluster.schema.json").read_text() == json_schema(), "`make docs`"


def test_the_page_of_metrics_is_what_the_controller_tells() -> None:
    assert (ROOT / "docs/reference/metrics.md").read_text() == metrics.markdown(), "`make docs`"


def test_the_page_of_figures_is_what_the_recording_rules_say() -> None:
    assert (ROOT / "docs/reference/rules.md").read_text() == rules.rules_markdown(), "`make docs`"


def test_the_page_of_alerts_is_what_the_alerts_say() -> None:
    assert (ROOT / "docs/reference/alerts.md").read_text() == rules.alerts_markdown(), "`make docs`"


def test_the_page_of_commands_is_what_the_command_line_says() -> None:
    assert (ROOT / "docs/reference/cli.md").read_text() == cli_reference.markdown(), "`make docs`"
