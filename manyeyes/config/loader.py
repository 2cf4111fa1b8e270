"""Reads cluster.yaml and reports all of its problems together."""

import hashlib
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from manyeyes.config import documents, validation
from manyeyes.config.cluster import Cluster, sections
from manyeyes.config.documents import FileProblems, is_union_branch, place_of
from manyeyes.config.fields import VOLUME


class ConfigError(FileProblems):
    """cluster.yaml is invalid."""


def load(path: Path) -> Cluster:
    """Reads the cluster from the file; `engines` is not placed yet. Raises ConfigError."""
    cluster = documents.load_file(_parse, ConfigError, path)
    if cluster is None:
        raise ConfigError(
            path, ["does not exist. Copy a file of config/examples/ there, or set CONFIG= to another file."]
        )
    return cluster


def keys_path(path: Path, cluster: Cluster) -> Path:
    """Returns the path of the API keys file, in the folder of the configuration `path`. See credentials.load_keys()."""
    return path.parent / cluster.gateway.keys_file


def users_path(path: Path, cluster: Cluster) -> Path:
    """Returns the path of the users file, in the folder of the configuration `path`. See credentials.load_users()."""
    return path.parent / cluster.webui.users_file


def parse(text: str, path: Path = Path("cluster.yaml")) -> Cluster:
    """Same as load(), from text; `path` is used only in errors. Raises ConfigError, and no other exception for any
    text."""
    return documents.parse_file(_parse, ConfigError, text, path)


def _parse(text: str, path: Path) -> Cluster:
    document = documents.parse(text)
    if not isinstance(document, dict):
        raise ConfigError(
            path,
            [
                "expected sections such as `pools:`, got "
                + ("nothing" if document is None else "a " + type(document).__name__)
            ],
        )
    try:
        cluster = Cluster.model_validate(document)
    except ValidationError as error:
        problems = describe_errors(error.errors(include_url=False), document)
        problems += _rule_problems_of_valid_items(error, document)
        raise ConfigError(path, problems) from error
    if problems := validation.problems(cluster):
        raise ConfigError(path, problems)
    return cluster


def _rule_problems_of_valid_items(error: ValidationError, document: dict[str, Any]) -> list[str]:
    """Checks the rules for the items whose fields are valid, so that a single run reports both kinds of problem."""
    invalid_items = {_item_of(detail["loc"]) for detail in error.errors(include_url=False)}
    sections_with_items = {section for section, number in invalid_items if number is not None}
    valid_document = dict(document)
    invalid_names: set[str] = set()
    for section, _ in invalid_items:
        if section not in ("pools", "engines"):
            valid_document.pop(section, None)
        elif section not in sections_with_items:
            return []  # the whole section is invalid, such as text in place of a list
    for section in ("pools", "engines"):
        if isinstance(items := document.get(section), list):
            valid_document[section] = [
                item for number, item in enumerate(items) if (section, number) not in invalid_items
            ]
            invalid_names |= {
                str(item.get("name"))
                for number, item in enumerate(items)
                if isinstance(item, dict) and (section, number) in invalid_items
            }
    try:
        problems = validation.problems(Cluster.model_validate(valid_document))
    except ValidationError:
        return []
    consequences = [f"{validation.EXPECTED_POOL}, got '{name}'" for name in invalid_names]
    return [problem for problem in problems if not any(text in problem for text in consequences)]


def _item_of(location: tuple[int | str, ...]) -> tuple[str, int | None]:
    """('engines', 'tuple[Engine, ...]', 2, 'gpus') -> ('engines', 2)."""
    return str(location[0]), next((step for step in location if isinstance(step, int)), None)


def describe_errors(
    details: Sequence[ErrorDetails], document: Any, settings: str = "docs/reference/configuration.md"
) -> list[str]:
    """Returns one sentence for each invalid field. A union reports each of its branches; the deepest one is used.

    `settings` is the document that lists all settings.
    """
    by_place: dict[str, list[ErrorDetails]] = {}
    for detail in details[:MAX_PROBLEMS]:
        by_place.setdefault(place_of(detail["loc"], document), []).append(detail)
    places = [
        place
        for place in by_place
        if not any(longer_place.startswith((place + ".", place + "[")) for longer_place in by_place)
    ]
    omitted = len(details) - MAX_PROBLEMS
    remainder = [f"{omitted} more problems are not listed; fix these first"] if omitted > 0 else []
    return [*(_sentence(place, by_place[place], settings) for place in places), *remainder]


def _last_key(location: tuple[int | str, ...]) -> str:
    keys = [step for step in location if isinstance(step, str) and not is_union_branch(step)]
    return keys[-1] if keys else ""


def _sentence(place: str, details: list[ErrorDetails], settings: str) -> str:
    detail = details[0]
    kind = detail["type"]
    if kind == "extra_forbidden":
        return f"{place} is not a setting{_suggest(place)}. All settings are listed in {settings}."
    if kind == "missing":
        return f"{place} is missing"
    expected = " or ".join(dict.fromkeys(_expected(branch) for branch in details))
    start = f"{place}: " if place else ""
    return f"{start}expected {expected}, got {_shorten(detail['input'])}"


def _expected(detail: ErrorDetails) -> str:
    context = detail.get("ctx", {})
    kind = detail["type"]
    if kind == "literal_error":
        return str(context["expected"])
    if kind == "string_pattern_mismatch":
        return PATTERNS.get(str(context["pattern"]), f"text that matches {context['pattern']}")
    if kind in {"int_type", "int_parsing", "int_from_float"}:
        return "a whole number"
    if kind in {"float_type", "float_parsing"}:
        return "a number"
    if kind in {"bool_type", "bool_parsing"}:
        return "true or false"
    if kind in {"tuple_type", "list_type"}:
        return LISTS.get(_last_key(detail["loc"]), "a list")
    if kind == "string_type":
        return "text"
    if kind in {"model_type", "model_attributes_type", "dict_type"}:
        return "a section of settings"
    message = detail["msg"].partition(" after validation")[0]
    for start in ("Input should be ", "Input is not ", "Value error, ", *HAS_LENGTH):
        message = message.removeprefix(start)
    value = "a number " if kind.startswith(("greater_than", "less_than")) else ""
    return value + message[:1].lower() + message[1:]


def _suggest(place: str) -> str:
    key = place.rsplit(".")[-1]
    names = {name for _, section in sections() for name in section.model_fields} - {key}
    return (
        f"; did you mean {matches[0]}" if (matches := get_close_matches(key, sorted(names), n=1, cutoff=0.75)) else ""
    )


HAS_LENGTH = ("String should have ", "Tuple should have ", "List should have ", "Dictionary should have ")
MAX_PROBLEMS = 500
"""Maximum number of reported problems. A hostile file could have any number of them."""
LISTS = {"gpus": "a list of GPU numbers", "pools": "a list of pools", "engines": "a list of engines"}
PATTERNS = {
    r"^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$": "a name of 1 to 40 lowercase letters, digits and hyphens",
    r"^(\d+|GPU-[0-9a-fA-F-]+|MIG-[0-9a-zA-Z/-]+)$": "a GPU number, GPU-uuid or MIG-id",
    r"^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?:[0-9]{1,5}$": "an address such as host:8000",
    r"^[a-z0-9][a-zA-Z0-9._/:@-]+$": "an image such as nginx:1.30",
    r"^([01]\d|2[0-3]):[0-5]\d$|^24:00$": "a time such as 08:00",
    r"^[A-Za-z0-9][A-Za-z0-9._-]*$": "a file name without a folder",
    r"^https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?$": "an address such as https://api.example.com/v1",
    r"^https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?([/?][\x21\x24-\x7e]*)?$": "an address such as https://api.example.com/generate",
    r"^[^\x00-\x1f\x7f]*$": "one line of text",
    r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,199}$": "a branch, a tag or a commit",
    VOLUME: "the name of a volume, or an absolute path without quotes and $ : # \\",
    r"^[^\x00-\x1f\x7f{}]+$": "one line of text without braces",
    r"^[A-Za-z0-9][A-Za-z0-9._/:@-]{0,127}$": "1 to 128 letters, digits and . _ / : @ -, starting with a letter or digit",
    r"^[A-Za-z0-9@][A-Za-z0-9._/:@+-]{0,199}$": "1 to 200 letters, digits and . _ / : @ + -, starting with a letter, digit or @",
    r"^(/[^\x00-\x1f\x7f$]*|[A-Za-z0-9@][A-Za-z0-9._/:@+-]{0,199})$": (
        "a model id of 1 to 200 letters, digits and . _ / : @ + -, or an absolute path"
    ),
}


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def config_fingerprint(cluster: str | None, keys: str | None) -> str:
    """Returns a digest of both texts, twelve hexadecimal digits. None means that the file does not exist."""
    texts = (cluster or "", "" if keys is None else f"keys:{keys}")
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]


def fingerprint_of_file(config: Path) -> str:
    """Returns the digest of the configuration file and its API keys file. Raises ConfigError."""
    keys = keys_path(config, load(config))
    return config_fingerprint(
        config.read_text(encoding="utf-8"), keys.read_text(encoding="utf-8") if keys.exists() else None
    )
