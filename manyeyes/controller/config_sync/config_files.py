"""Reads and validates the configuration files: cluster.yaml, the API keys, the inventory and what `make up` started."""

from dataclasses import dataclass
from pathlib import Path

import structlog

from manyeyes.config import documents
from manyeyes.config.credentials import ApiKeys, KeysError, parse_keys
from manyeyes.config.documents import DocumentError
from manyeyes.config.loader import ConfigError, config_fingerprint, keys_path, parse
from manyeyes.config.placement import (
    DEFAULT_INVENTORY,
    Inventory,
    PlacedCluster,
    PlacementError,
    parse_inventory,
    place_engines,
)
from manyeyes.controller.config_sync.apply_plan import STARTED

log = structlog.get_logger()


@dataclass(frozen=True)
class UnreadableFile:
    """A file that exists but cannot be read."""

    why: str


Text = str | UnreadableFile | None
"""None when the file does not exist."""


@dataclass(frozen=True)
class ConfigTexts:
    cluster: Text
    keys: Text
    inventory: Text
    started: Text
    """The services of engines as their containers were started."""
    environment: Text

    @property
    def digest(self) -> str:
        """Fingerprint of the files that the operator writes: cluster.yaml and the API keys."""
        cluster, keys = (
            text if not isinstance(text, UnreadableFile) else f"unreadable: {text.why}"
            for text in (self.cluster, self.keys)
        )
        return config_fingerprint(cluster, keys)


@dataclass(frozen=True)
class ValidConfiguration:
    cluster: PlacedCluster
    """The written cluster, with its engines placed on this host."""
    keys: ApiKeys


class InvalidConfiguration(Exception):
    """`problems` are lines as `make check-config` prints them; `reasons` are their kinds, for the metric."""

    def __init__(self, problems: list[str], reasons: set[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
        self.reasons = reasons


def read_files(config: Path, inventory: Path, keys_file: str) -> ConfigTexts:
    """Reads all files. `keys_file` is the name of the file with the API keys; empty when there is none."""
    rendered = inventory.parent
    return ConfigTexts(
        read_text(config),
        read_text(config.parent / keys_file) if keys_file else None,
        read_text(inventory),
        # `make up` records each engine as it starts it; a plain `docker compose up` starts the rendered engines.
        read_text(rendered / STARTED) or read_text(rendered / "engines.yaml"),
        read_text(rendered / "compose.env"),
    )


def validate(texts: ConfigTexts, config: Path, keys_before: ApiKeys) -> ValidConfiguration:
    """Validates the files. Pure. Raises only InvalidConfiguration, with all problems.

    When `keys_before` has keys, an empty keys file is rejected: it would allow every client without a key.
    """
    try:
        return _understood(texts, config, keys_before)
    except InvalidConfiguration:
        raise
    except Exception as error:
        log.exception("configuration_invalid", file=str(config))
        raise InvalidConfiguration([f"{config}: {documents.describe_bug(error)}"], {"bug"}) from error


def _understood(texts: ConfigTexts, config: Path, keys_before: ApiKeys) -> ValidConfiguration:
    if texts.cluster is None:
        raise InvalidConfiguration([f"{config}: does not exist"], {"cluster"})
    if isinstance(texts.cluster, UnreadableFile):
        raise InvalidConfiguration([f"{config}: {texts.cluster.why}"], {"cluster"})
    try:
        cluster = parse(texts.cluster, config)
    except ConfigError as error:
        raise InvalidConfiguration(str(error).splitlines(), {"cluster"}) from error
    keys = ApiKeys()
    problems: list[str] = []
    reasons: set[str] = set()
    placed: PlacedCluster | None = None
    path = keys_path(config, cluster)
    try:
        keys = _keys(texts.keys, path, keys_before)
    except KeysError as error:
        problems += str(error).splitlines()
        reasons.add("keys")
    try:
        placed = place_engines(cluster, _inventory(texts.inventory))
    except PlacementError as error:
        problems.append(f"{config}: {error}")
        reasons.add("layout")
    if placed is None or problems:
        raise InvalidConfiguration(problems, reasons)
    return ValidConfiguration(placed, keys)


def _keys(text: Text, path: Path, before: ApiKeys) -> ApiKeys:
    if isinstance(text, UnreadableFile):
        raise KeysError(path, [text.why])
    keys = parse_keys(text or "", path)
    if before.keys and "keys" not in keys.model_fields_set:  # a file with only comments, or with {}, counts as empty
        problem = "does not exist" if text is None else "is empty"
        raise KeysError(
            path, [f"{problem}, but API keys are active; to allow access without a key, write `keys: []` in it"]
        )
    return keys


def read_text(path: Path) -> Text:
    try:
        return documents.read_text(path)
    except FileNotFoundError:
        return None
    except DocumentError as error:
        return UnreadableFile(str(error))


def _inventory(text: Text) -> Inventory:
    if text is None:
        return DEFAULT_INVENTORY
    if isinstance(text, UnreadableFile):
        raise PlacementError(f"the inventory of this host, which `make up` writes, cannot be read: {text.why}")
    return parse_inventory(text)
