"""API keys: the file that lists them by name, with a hash in place of each key."""

import hashlib
import secrets
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field, StringConstraints, ValidationError

from config.section import Section

HEAD = "# API keys by name; sha256 is of the key itself, which is nowhere kept. `make key NAME=` adds one.\n"


class KeysError(Exception):
    """The keys file cannot be used; the message names it and says why."""


class Key(Section):
    """Who may ask, and how much."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$")]
    """Its name in logs and metrics."""
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    """SHA-256 of the key, in hexadecimal."""
    requests_per_minute: int | None = Field(None, ge=1, le=1_000_000)
    """null: no limit. A minute's worth may come at once."""
    in_flight: int | None = Field(None, ge=1, le=65_535)
    """Requests at the same time. null: no limit."""


class Keys(Section):
    """The whole file."""

    keys: tuple[Key, ...] = ()


def load_keys(path: Path) -> Keys:
    """The keys of `path`; none when it does not exist. Raises KeysError."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        keys = Keys.model_validate(document)
    except FileNotFoundError:
        return Keys()
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise KeysError(f"{path}: cannot be read: {error}") from error
    except ValidationError as error:
        problems = [f"{path}: {'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
        raise KeysError("\n".join(problems)) from error
    for field in ("name", "sha256"):
        values = [getattr(key, field) for key in keys.keys]
        if twice := sorted({value for value in values if values.count(value) > 1}):
            raise KeysError(f"{path}: two keys have the same {field}: {', '.join(twice)}")
    return keys


def add_key(path: Path, name: str, requests_per_minute: int | None, in_flight: int | None) -> str:
    """Writes a new key's hash into `path` and returns the key, which is shown once. Raises KeysError."""
    keys = load_keys(path)
    if any(key.name == name for key in keys.keys):
        raise KeysError(f"{path}: there is a key named '{name}' already; remove its lines to make another")
    key = f"me-{secrets.token_urlsafe(32)}"
    digest = hashlib.sha256(key.encode()).hexdigest()
    try:
        made = Key(name=name, sha256=digest, requests_per_minute=requests_per_minute, in_flight=in_flight)
    except ValidationError as error:
        raise KeysError("\n".join(f"{one['loc'][0]}: {one['msg']}" for one in error.errors())) from error
    document = {"keys": [one.model_dump(exclude_none=True) for one in (*keys.keys, made)]}
    temporary = path.with_name(f"{path.name}.new")
    temporary.write_text(HEAD + yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    temporary.replace(path)
    return key
