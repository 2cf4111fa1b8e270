"""The files of the configuration, read and validated: cluster.yaml, the API keys, what `make up` found and started."""

from dataclasses import dataclass
from pathlib import Path

import structlog
from pydantic import ValidationError

from manyeyes.config import documents
from manyeyes.config.credentials import ApiKeys, KeysError, parse_keys
from manyeyes.config.documents import DocumentError
from manyeyes.config.loader import ConfigError, config_fingerprint, keys_path, parse
from manyeyes.config.placement import DEFAULT_INVENTORY, Inventory, PlacedCluster, PlacementError, place_engines
from manyeyes.controller.config_sync.apply_plan import STARTED

log = structlog.get_logger()


@dataclass(frozen=True)
class UnreadableFile:
    """A file that is there and cannot be read."""

    why: str


Text = str | UnreadableFile | None
"""None where there is no such file."""


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
        """Names what the operator wrote."""
        cluster, keys = (
            one if not isinstance(one, UnreadableFile) else f"unreadable: {one.why}"
            for one in (self.cluster, self.keys)
        )
        return config_fingerprint(cluster, keys)


@dataclass(frozen=True)
class ValidConfiguration:
    cluster: PlacedCluster
    """As written, laid out on this host."""
    keys: ApiKeys


class InvalidConfiguration(Exception):
    """`problems` are lines as `make check-config` prints them; `reasons` say what kind they are."""

    def __init__(self, problems: list[str], reasons: set[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
        self.reasons = reasons


def read_files(config: Path, inventory: Path, keys_file: str) -> ConfigTexts:
    """The files as they are at this moment. `keys_file` is the name of the one with the keys."""
    rendered = inventory.parent
    return ConfigTexts(
        read_text(config),
        read_text(config.parent / keys_file) if keys_file else None,
        read_text(inventory),
        # `make up` writes down each engine as it starts it; a plain `docker compose up` starts what is rendered.
        read_text(rendered / STARTED) or read_text(rendered / "engines.yaml"),
        read_text(rendered / "compose.env"),
    )


def validate(texts: ConfigTexts, config: Path, keys_before: ApiKeys) -> ValidConfiguration:
    """Pure. Raises InvalidConfiguration with everything that is wrong, and nothing else.

    Where `keys_before` holds keys, a file with nothing in it is not taken at its word: it would let everybody in.
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
    if before.keys and "keys" not in keys.model_fields_set:  # comments alone, or {}, are no word either
        found = "is gone" if text is None else "is empty"
        raise KeysError(path, [f"{found} while there are keys in force; `keys: []` in it lets everybody in"])
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
    try:
        if isinstance(text, UnreadableFile):
            raise DocumentError(text.why)
        return Inventory.model_validate(documents.parse(text))
    except (ValidationError, DocumentError) as error:
        raise PlacementError(
            f"what `make up` found on this host cannot be read: {' '.join(str(error).split())}"
        ) from error
