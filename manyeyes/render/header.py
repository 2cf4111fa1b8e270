"""A rendered file: its first line says how to remake it."""

from typing import Any

import yaml

HEADER = "Made by `make render` from config/cluster.yaml. Do not edit: the next `make up` writes it anew."
GATEWAY_HEADER = "Made by the controller from config/cluster.yaml. Do not edit: the next change writes it anew."


def with_header(text: str) -> str:
    """`text` after a comment line; for formats whose comments start with #."""
    return f"# {HEADER}\n{text}"


def for_gateway(text: str) -> str:
    """As with_header(), for a file that the controller writes for nginx."""
    return f"# {GATEWAY_HEADER}\n{text}"


def as_yaml(document: Any) -> str:
    """Block style, the given order of keys, no aliases, long lines unbroken."""
    return with_header(plain_yaml(document))


def plain_yaml(document: Any) -> str:
    """As as_yaml(), without the line that says how to remake it."""
    return yaml.dump(document, Dumper=_PlainDumper, sort_keys=False, width=10_000, allow_unicode=True)


class _PlainDumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True
