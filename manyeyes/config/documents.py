"""Reads YAML files that may be invalid or damaged, within limits of size and depth, and with one type of error.

PyYAML raises a dozen exceptions in addition to its own (a wrong date is a ValueError, `!!bool x` a KeyError, deep
nesting a RecursionError), and a few hundred bytes of aliases can expand to billions of values.
"""

import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import yaml

MAX_BYTES = 4 << 20
"""A configuration with 1,000 engines has 200 KB."""
MAX_NODES = 100_000
"""Maximum number of values in a document. An alias counts each time it is used."""
MAX_LEVELS = 60
MAX_NUMBER = 2**63
Parsed = TypeVar("Parsed")
MERGE = "tag:yaml.org,2002:merge"


class FileProblems(Exception):
    """A file is invalid. `problems` has one sentence for each problem; `str()` has all of them with the file name."""

    def __init__(self, path: Path, problems: list[str]) -> None:
        self.path = path
        self.problems = problems
        super().__init__("\n".join(f"{path}: {problem}" for problem in problems))


class DocumentError(ValueError):
    """The file or its text is invalid. The message is one sentence, with line and column where they are known."""


def read_text(path: Path) -> str:
    """Returns the text of a regular file. Raises FileNotFoundError, and DocumentError for any other problem."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise DocumentError("is a folder, not a file")
        if not stat.S_ISREG(mode):
            raise DocumentError("is not a regular file")  # reading a pipe or a device might never return
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        if isinstance(error, DocumentError):
            raise
        raise DocumentError(f"cannot be read: {_one_line(error)}") from error
    if len(raw) > MAX_BYTES:
        raise DocumentError(f"is larger than {MAX_BYTES >> 20} MiB")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DocumentError(f"is not UTF-8 text: byte {error.start + 1} is invalid") from error


def parse(text: str) -> Any:
    """Parses a document; None if it is empty. A duplicate key is an error. Raises DocumentError, and no other
    exception."""
    try:
        if len(text) > MAX_BYTES:
            raise DocumentError(f"is larger than {MAX_BYTES >> 20} MiB")
        loader = _StrictLoader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except DocumentError:
        raise
    except yaml.YAMLError as error:
        raise DocumentError(_yaml_problem(error)) from error
    except RecursionError as error:
        raise DocumentError(f"is nested more than {MAX_LEVELS} levels deep") from error
    except Exception as error:
        raise DocumentError(f"is not valid YAML: {type(error).__name__}: {_one_line(error)}") from error


def read(path: Path) -> Any:
    """Parses the document in a file. Raises FileNotFoundError and DocumentError."""
    return parse(read_text(path))


def parse_file(parse: Callable[[str, Path], Parsed], error: type[FileProblems], text: str, path: Path) -> Parsed:
    """Returns parse(text, path); `path` is used only in errors. Raises `error`, and no other exception for any text."""
    try:
        return parse(text, path)
    except error:
        raise
    except DocumentError as problem:
        raise error(path, [str(problem)]) from problem
    except Exception as bug:
        raise error(path, [describe_bug(bug)]) from bug


def load_file(parse: Callable[[str, Path], Parsed], error: type[FileProblems], path: Path) -> Parsed | None:
    """Same as parse_file(), for a file; None if it does not exist."""
    try:
        text = read_text(path)
    except FileNotFoundError:
        return None
    except DocumentError as problem:
        raise error(path, [str(problem)]) from problem
    return parse_file(parse, error, text, path)


def describe_bug(error: Exception) -> str:
    """Describes an unexpected exception in one sentence."""
    return f"cannot be used: {type(error).__name__}: {_one_line(error)}. This is a bug in ManyEyes; please report it."


def place_of(location: tuple[int | str, ...], document: Any) -> str:
    """('engines', 0, 'gpus') -> engines[gpu-1].gpus. List items are named by their `name` if they have one."""
    place, value = "", document
    for step in location:
        if isinstance(step, int):
            value = value[step] if isinstance(value, list) and step < len(value) else None
            name = value.get("name", step) if isinstance(value, dict) else step
            place += f"[{name}]"
        elif isinstance(value, dict) and step in value:
            value = value[step]
            place += f".{step}" if place else step
        elif not is_union_branch(step):
            value = None
            place += f".{step}" if place else step
    return place


def is_union_branch(step: str) -> bool:
    """Whether pydantic added this step for a branch of a union: tuple[Engine, ...], literal['auto'],
    constrained-str."""
    return any(mark in step for mark in "[]()") or step in {"str", "int", "float", "constrained-str", "constrained-int"}


class _StrictLoader(yaml.SafeLoader):
    """Rejects duplicate keys. PyYAML silently uses the last of them."""

    def get_single_node(self) -> yaml.Node | None:
        node: yaml.Node | None = super().get_single_node()
        if node is not None:
            _check(node)
        return node

    def fetch_flow_collection_start(self, token: Any) -> None:
        # The scanner runs before the check below, and its time grows with the square of the depth.
        if self.flow_level > MAX_LEVELS:
            problem = f"nested more than {MAX_LEVELS} levels deep"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=self.get_mark())
        super().fetch_flow_collection_start(token)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)
        except (yaml.YAMLError, RecursionError):
            raise
        except Exception as error:
            kind = str(node.tag).rpartition(":")[2]
            raise _marked_error(
                node, f"{_shorten(node)} is not a valid !!{kind}; put it in quotes if it is text"
            ) from error
        if isinstance(value, int) and abs(value) >= MAX_NUMBER:
            raise _marked_error(node, "the number is too large")
        return value


def _check(top: yaml.Node) -> None:
    """Raises a YAML error for a document that takes too much memory or time to build, or that YAML cannot represent."""
    sizes: dict[int, tuple[int, int]] = {}
    """(values, levels) of each node."""
    in_progress: set[int] = set()

    def measure(node: yaml.Node, level: int) -> tuple[int, int]:
        if id(node) in in_progress:
            raise _marked_error(node, "the alias refers to itself")
        if id(node) not in sizes:
            if level > MAX_LEVELS:
                raise _marked_error(node, f"nested more than {MAX_LEVELS} levels deep")
            in_progress.add(id(node))
            child_sizes = [measure(child, level + 1) for child in _children(node)]
            in_progress.discard(id(node))
            values, levels = (
                1 + sum(size[0] for size in child_sizes),
                1 + max((size[1] for size in child_sizes), default=0),
            )
            sizes[id(node)] = values, levels
        values, levels = sizes[id(node)]
        if values > MAX_NODES:
            raise _marked_error(node, f"more than {MAX_NODES} values, with aliases expanded")
        if level + levels > MAX_LEVELS + 1:
            raise _marked_error(node, f"nested more than {MAX_LEVELS} levels deep")
        return values, levels

    measure(top, 0)


def _children(node: yaml.Node) -> list[yaml.Node]:
    """Returns the children of a node. Raises a YAML error if the node itself is invalid."""
    if isinstance(node, yaml.ScalarNode):
        if any("\ud800" <= character <= "\udfff" for character in node.value):
            raise _marked_error(node, "the text has a surrogate (\\ud800 to \\udfff), which is half of a character")
        return []
    if not isinstance(node, yaml.MappingNode):
        return list(node.value)
    keys: set[str] = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _marked_error(key, "a mapping or a list cannot be a key; put text such as {{ name }} in quotes")
        if key.value in keys and key.tag != MERGE:
            raise _marked_error(key, f"duplicate key {_shorten(key)}")
        keys.add(key.value)
    return [child for pair in node.value for child in pair]


def _marked_error(node: yaml.Node, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)


def _shorten(node: yaml.Node) -> str:
    text = repr(node.value) if isinstance(node, yaml.ScalarNode) else "the value"
    return text if len(text) <= 60 else text[:57] + "..."


def _yaml_problem(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    position = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return f"{position}{getattr(error, 'problem', None) or _one_line(error)}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
