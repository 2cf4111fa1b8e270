"""Generates docs/reference/cli.md: all commands of `manyeyes` with their options, from typer's description."""

import typer.cli
import typer.main
from typer.core import TyperGroup

from manyeyes.cli.__main__ import app


def markdown() -> str:
    """Returns the reference as Markdown. The same code gives the same bytes."""
    group = typer.main.get_group(app)
    context = typer.Context(group, info_name="manyeyes")
    with context:
        text = typer.cli.get_docs_for_click(obj=group, ctx=context, name="manyeyes", title="The command line")
        text = _with_full_summaries(text, group)
    return "\n".join(line.rstrip() for line in text.splitlines()).strip() + "\n"


def _with_full_summaries(text: str, group: TyperGroup) -> str:
    """Replaces the summaries in the list of commands, which typer cuts at 45 characters, and adds links."""
    for name, command in group.commands.items():
        summary = (command.help or "").split("\n\n")[0].replace("\n", " ")
        line = f"* `{name}`: {command.get_short_help_str()}\n"
        text = text.replace(line, f"* [`{name}`](#manyeyes-{name}): {summary}\n", 1)
    return text


if __name__ == "__main__":
    print(markdown(), end="")
