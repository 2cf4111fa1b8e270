"""Every section of the schema with its place."""

from collections.abc import Iterator
from typing import Any, get_args

from manyeyes.config.base import Section
from manyeyes.config.cluster import Cluster

PLURALS = {"pools": "pools[]", "engines": "engines[]"}


def sections(place: str = "", section: type[Section] = Cluster) -> Iterator[tuple[str, type[Section]]]:
    """('', Cluster), ('pools[]', Pool), ('pools[].media', Media) and so on, in the schema's order."""
    yield place, section
    for key, field in section.model_fields.items():
        for inner in _section_types(field.annotation):
            name = PLURALS.get(key, key)
            yield from sections(f"{place}.{name}" if place else name, inner)


def _section_types(annotation: Any) -> Iterator[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    else:
        for part in get_args(annotation):
            yield from _section_types(part)
