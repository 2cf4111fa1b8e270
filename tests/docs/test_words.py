"""Prose follows the word list: documents, comments, docstrings, messages, page texts. `rejected_words.yaml` has the list and its reasons."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml

from tests.docs.prose import ROOT, blank_code_blocks, tracked_files

RULES = yaml.safe_load((Path(__file__).parent / "rejected_words.yaml").read_text(encoding="utf-8"))
PATTERNS = [(re.compile(rule["match"], re.IGNORECASE), rule["use"]) for rule in RULES]
ANY = re.compile("|".join(f"(?:{rule['match']})" for rule in RULES), re.IGNORECASE)
CODE = re.compile(r"`[^`]*`")
URL = re.compile(r"https?://\S+|\]\([^)]*\)")
SENTENCE = re.compile(r"[A-Za-z]+ +[A-Za-z]+")
"""A string is prose when two words follow each other; keys, paths and names are not."""

Line = tuple[int, str]


def in_python(text: str) -> Iterator[Line]:
    """Comments, docstrings, and string literals that hold two words in a row."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and SENTENCE.search(node.value):
            for offset, line in enumerate(node.value.split("\n")):
                yield node.lineno + offset, line


def in_markdown(text: str) -> Iterator[Line]:
    yield from enumerate(blank_code_blocks(text).split("\n"), 1)


def in_script(text: str) -> Iterator[Line]:
    """Comments, and strings with two words in a row, of JavaScript, shell and nginx."""
    for number, line in enumerate(text.split("\n"), 1):
        for found in re.finditer(r"(?://|#|^\s*\*|/\*)\s.*|\"[^\"]*\"|'[^']*'", line):
            if SENTENCE.search(found[0]):
                yield number, found[0]


def in_yaml(text: str) -> Iterator[Line]:
    for number, line in enumerate(text.split("\n"), 1):
        if SENTENCE.search(line):
            yield number, line


READERS = {
    ".py": in_python,
    ".md": in_markdown,
    ".js": in_script,
    ".sh": in_script,
    ".conf": in_script,
    ".css": in_script,
    ".yaml": in_yaml,
    ".yml": in_yaml,
    ".po": in_yaml,
}
NOT_READ = re.compile(
    r"^(tests/docs/rejected_words\.yaml|tests/|docs/benchmarks/.*\.ya?ml|compose/rendered/|deploy/|monitoring/grafana/|requirements/)"
)
"""What ships and what people read. Rendered files repeat what their renderers say."""


@cache
def files() -> tuple[str, ...]:
    return tuple(name for name in tracked_files() if Path(name).suffix in READERS and not NOT_READ.match(name))


def problems(name: str, text: str) -> Iterator[str]:
    for number, line in READERS[Path(name).suffix](text):
        prose = URL.sub("", CODE.sub("", line))
        if ANY.search(prose):
            for pattern, use in PATTERNS:
                for found in pattern.finditer(prose):
                    yield f"{name}:{number}: {found[0]!r}: {use}"


@pytest.mark.parametrize("name", files())
def test_the_words_of_a_file_are_the_fields(name: str) -> None:
    assert not list(problems(name, (ROOT / name).read_text(encoding="utf-8")))


if __name__ == "__main__":
    for one in files():
        for problem in problems(one, (ROOT / one).read_text(encoding="utf-8")):
            print(problem)
