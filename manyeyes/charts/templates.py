"""Renders self-contained HTML pages from Jinja2 templates. Values are escaped, and a missing name is an error.

`base.html.j2` has the parts that all pages share: the style, the header, and the macros for cards and tables.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from manyeyes.charts.svg import STYLE

FOLDER = Path(__file__).parent


def render_page(template: Path, **values: object) -> str:
    """The page as HTML. `values` that are already SVG or HTML must be Markup."""
    environment = Environment(
        loader=FileSystemLoader([template.parent, FOLDER]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template.name).render(style=Markup(STYLE), **values)


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, ["---"] * len(head), *rows))
