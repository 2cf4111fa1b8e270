"""Documents made from the schema are up to date."""

from pathlib import Path

from config.reference import json_schema, markdown

ROOT = Path(__file__).resolve().parents[2]


def test_the_configuration_page_is_what_the_schema_says() -> None:
    assert (ROOT / "docs/configuration.md").read_text() == markdown(), "`make docs`"


def test_the_json_schema_is_what_the_schema_says() -> None:
    assert (ROOT / "config/cluster.schema.json").read_text() == json_schema(), "`make docs`"
