"""API keys: the file that lists them by name, with a hash in place of each key."""

import hashlib
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints, ValidationError

from manyeyes.config import documents, named_entries
from manyeyes.config.base import Section
from manyeyes.config.documents import DocumentError, FileProblems

HEAD = "# API keys by name; sha256 is of the key itself, which is nowhere kept. `manyeyes key NAME` adds one.\n"


class KeysError(FileProblems):
    """The keys file cannot be used."""


class ApiKey(Section):
    """Who may ask, and how much."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$")]
    """Its name in logs and metrics."""
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    """SHA-256 of the key, in hexadecimal."""
    requests_per_minute: int | None = Field(None, ge=1, le=1_000_000)
    """null: no limit. A minute's worth may come at once."""
    in_flight: int | None = Field(None, ge=1, le=65_535)
    """Requests at the same time. null: no limit."""


class ApiKeys(Section):
    """The whole file."""

    keys: tuple[ApiKey, ...] = ()


WANTED = {
    "keys": "a list of keys",
    "name": "letters, digits and . _ @ -, at most 64, a letter or digit first",
    "sha256": "64 hexadecimal digits, the SHA-256 of the key",
    "requests_per_minute": "a whole number from 1 to 1000000",
    "in_flight": "a whole number from 1 to 65535",
}


def load_keys(path: Path) -> ApiKeys:
    """The keys of `path`; none when it does not exist. Raises KeysError."""
    found = documents.load_file(_parse, KeysError, path)
    return ApiKeys() if found is None else found


def parse_keys(text: str, path: Path) -> ApiKeys:
    """As load_keys(), from text; `path` only names it in errors. Raises KeysError and nothing else, whatever the text is."""
    return documents.parse_file(_parse, KeysError, text, path)


def _parse(text: str, path: Path) -> ApiKeys:
    try:
        document = documents.parse(text)
        if document is None:
            document = {}
        keys = ApiKeys.model_validate(document)
    except DocumentError as error:
        raise KeysError(path, [f"cannot be read: {error}"]) from error
    except ValidationError as error:
        found = error.errors(include_url=False)
        raise KeysError(
            path,
            [
                f"{named_entries.entry_place(one, document, 'keys')} {named_entries.describe_entry_error(one, ApiKey, WANTED, 'keys')}"
                for one in found
            ],
        ) from error
    if problems := list(_repetitions(keys)):
        raise KeysError(path, problems)
    return keys


def add_key(path: Path, name: str, requests_per_minute: int | None, in_flight: int | None) -> str:
    """Writes a new key's hash into `path` and returns the key, which is shown once. Raises KeysError."""
    keys = load_keys(path)
    if any(key.name == name for key in keys.keys):
        raise KeysError(path, [f"there is a key named '{name}' already; remove its lines to make another"])
    if problems := list(named_entries.find_case_collisions([*(key.name for key in keys.keys), name], "keys")):
        raise KeysError(path, problems)
    key = f"me-{secrets.token_urlsafe(32)}"
    digest = hashlib.sha256(key.encode()).hexdigest()
    try:
        made = ApiKey(name=name, sha256=digest, requests_per_minute=requests_per_minute, in_flight=in_flight)
    except ValidationError as error:
        problems = [
            f"{one['loc'][0]} {named_entries.describe_entry_error(one, ApiKey, WANTED, 'keys')}, found {one['input']!r}"
            for one in error.errors()
        ]
        raise KeysError(path, problems) from error
    document = {"keys": [one.model_dump(exclude_none=True) for one in (*keys.keys, made)]}
    named_entries.write_entries(path, HEAD, document)
    return key


def _repetitions(keys: ApiKeys) -> Iterator[str]:
    names, digests = [key.name for key in keys.keys], [key.sha256 for key in keys.keys]
    yield from named_entries.find_repeated(names, "keys")
    yield from named_entries.find_case_collisions(names, "keys")
    for digest in sorted({digest for digest in digests if digests.count(digest) > 1}):
        same = " and ".join(f"keys[{key.name}]" for key in keys.keys if key.sha256 == digest)
        yield f"{same} have the same sha256, so they are one key"
