"""The schema, told to editors (JSON Schema) and to people (docs/configuration.md)."""

import json
from enum import Enum
from ipaddress import IPv4Address, IPv4Network

from pydantic.fields import FieldInfo

from manyeyes.config.base import Section
from manyeyes.config.cluster import Cluster, sections


def json_schema() -> str:
    """For `# yaml-language-server: $schema=` on top of cluster.yaml."""
    return json.dumps(Cluster.model_json_schema(), indent=2) + "\n"


def markdown() -> str:
    """docs/configuration.md."""
    lines = [
        "# Configuration",
        "",
        "<!-- Made by `make docs` from the schema in config/. Do not edit. -->",
        "",
        "Everything an operator may change stands in `config/cluster.yaml`; a section or key that is left out has the value below.",
        "`make check-config` reads the file and prints every problem at once. Examples are in `config/examples/`.",
        "Secrets and host paths come from the environment (`.env.example`).",
        "",
    ]
    for place, section in sections():
        lines += [
            f"## {place or 'Top level'}",
            "",
            _first_line(section),
            "",
            "| key | default | meaning |",
            "|---|---|---|",
        ]
        for key, field in section.model_fields.items():
            lines.append(f"| `{key}` | {_default(field)} | {_cell(field.description or '')} |")
        lines.append("")
    return "\n".join(lines)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "*required*"
    value = field.default
    if isinstance(value, Section):
        return "see below"
    if isinstance(value, IPv4Address | IPv4Network | Enum):
        value = str(value)
    return f"`{json.dumps(value)}`"


def _first_line(section: type[Section]) -> str:
    return (section.__doc__ or "").strip().splitlines()[0]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
