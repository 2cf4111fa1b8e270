"""The API keys file and the users file. Both list entries by name and store only hashes of keys and passwords."""

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import AfterValidator, Field, StringConstraints, ValidationError
from pydantic_core import ErrorDetails

from manyeyes.atomic_write import atomic_write
from manyeyes.config import checkout, documents
from manyeyes.config.documents import DocumentError, FileProblems
from manyeyes.config.fields import Section

FileModel = TypeVar("FileModel", bound=Section)
EntryName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$")]
NAME = "1 to 64 letters, digits and . _ @ -, starting with a letter or digit"
KEYS_HEAD = "# API keys by name, with the SHA-256 of each key. Keys are not stored. `manyeyes key NAME` adds a key.\n"


class KeysError(FileProblems):
    """The keys file cannot be used."""


class ApiKey(Section):
    """One API key and its limits."""

    name: EntryName
    """Name of the key in logs and metrics."""
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    """SHA-256 of the key, in hexadecimal."""
    requests_per_minute: int | None = Field(None, ge=1, le=1_000_000)
    """Maximum requests per minute; they may arrive in one burst. null: no limit."""
    in_flight: int | None = Field(None, ge=1, le=65_535)
    """Maximum concurrent answers: each request counts n x prompts. null: no limit."""


class ApiKeys(Section):
    """The API keys file."""

    keys: tuple[ApiKey, ...] = ()


EXPECTED_IN_KEYS = {
    "keys": "a list of keys",
    "name": NAME,
    "sha256": "64 hexadecimal digits, the SHA-256 of the key",
    "requests_per_minute": "a whole number from 1 to 1000000",
    "in_flight": "a whole number from 1 to 65535",
}


def load_keys(path: Path) -> ApiKeys:
    """Reads the keys in `path`; no keys if the file does not exist. Raises KeysError."""
    keys = documents.load_file(_parse_keys, KeysError, path)
    return ApiKeys() if keys is None else keys


def parse_keys(text: str, path: Path) -> ApiKeys:
    """Same as load_keys(), from text; `path` is used only in errors. Raises KeysError, and no other exception for any
    text."""
    return documents.parse_file(_parse_keys, KeysError, text, path)


def _parse_keys(text: str, path: Path) -> ApiKeys:
    keys = _validate(text, path, ApiKeys, ApiKey, KeysError, EXPECTED_IN_KEYS)
    if problems := list(_repetitions(keys)):
        raise KeysError(path, problems)
    return keys


def add_key(path: Path, name: str, requests_per_minute: int | None, in_flight: int | None) -> str:
    """Writes the hash of a new key to `path` and returns the key, which is shown only once. Raises KeysError."""
    keys = load_keys(path)
    if any(key.name == name for key in keys.keys):
        raise KeysError(path, [f"a key named '{name}' already exists; delete its entry to create a new key"])
    if problems := list(_case_collisions([*(key.name for key in keys.keys), name], "keys")):
        raise KeysError(path, problems)
    key = f"me-{secrets.token_urlsafe(32)}"
    digest = hashlib.sha256(key.encode()).hexdigest()
    try:
        new_key = ApiKey(name=name, sha256=digest, requests_per_minute=requests_per_minute, in_flight=in_flight)
    except ValidationError as error:
        problems = [
            f"{_problem(str(detail['loc'][0]), detail, ApiKey, EXPECTED_IN_KEYS, 'keys')}, got {detail['input']!r}"
            for detail in error.errors()
        ]
        raise KeysError(path, problems) from error
    document = {"keys": [entry.model_dump(exclude_none=True) for entry in (*keys.keys, new_key)]}
    _write(path, KEYS_HEAD, document)
    return key


def _repetitions(keys: ApiKeys) -> Iterator[str]:
    names, digests = [key.name for key in keys.keys], [key.sha256 for key in keys.keys]
    yield from find_repeated(names, "keys")
    yield from _case_collisions(names, "keys")
    for digest in sorted({digest for digest in digests if digests.count(digest) > 1}):
        entries = " and ".join(f"keys[{key.name}]" for key in keys.keys if key.sha256 == digest)
        yield f"{entries} have the same sha256; delete one of them"


USERS_HEAD = (
    "# Users of the web page. Passwords are hashed (scrypt). `manyeyes user NAME` adds a user or sets a new password.\n"
)
LOG_N, R, P = 14, 8, 1
"""Cost of scrypt: 16 MiB of memory and some tens of milliseconds per password."""
HASH_FORMAT = re.compile(r"scrypt\$([0-9]{2})\$([0-9]{1,2})\$([0-9]{1,2})\$([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+)")
MIN_PASSWORD_LENGTH = 8


class UsersError(FileProblems):
    """The users file cannot be used."""


def _check_scrypt_hash(text: str) -> str:
    """Checks the form of a hash. Its cost is limited, so that a users file cannot overload the web page."""
    match = HASH_FORMAT.fullmatch(text)
    if not match or not 14 <= int(match[1]) <= 17 or not 1 <= int(match[2]) <= 8 or not 1 <= int(match[3]) <= 4:
        raise ValueError("is not an scrypt hash with an accepted cost")
    try:
        sizes = [len(base64.b64decode(part, validate=True)) for part in (match[4], match[5])]
    except binascii.Error:
        raise ValueError("is not base64") from None
    if sizes[0] < 16 or sizes[1] != 32:
        raise ValueError("is too short")
    return text


class User(Section):
    """One user of the web page."""

    name: EntryName
    """Login name."""
    password: Annotated[str, AfterValidator(_check_scrypt_hash)]
    """scrypt$log2(N)$r$p$salt$hash, with salt and hash in base64."""


class Users(Section):
    """The users file."""

    users: tuple[User, ...] = ()

    def find(self, name: str) -> User | None:
        return next((user for user in self.users if user.name == name), None)


EXPECTED_IN_USERS = {
    "users": "a list of users",
    "name": NAME,
    "password": "a hash in the format that `manyeyes user` writes",
}
UNKNOWN_USER_HASH = "scrypt$14$8$1$" + "$".join(base64.b64encode(bytes(size)).decode() for size in (16, 32))
"""The hash that a password is compared with if the user does not exist, so that the check takes the same time."""


def hash_password(password: str) -> str:
    salt = secrets.token_bytes(16)
    digest = _scrypt(password, salt, LOG_N, R, P)
    return f"scrypt${LOG_N}${R}${P}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


def verify_password(password: str, user: User | None) -> bool:
    """Whether `password` is correct. Takes the same time for an unknown user (None). Call it in a thread."""
    match = HASH_FORMAT.fullmatch(user.password if user else UNKNOWN_USER_HASH)
    assert match
    log_n, r, p = (int(match[group]) for group in (1, 2, 3))
    salt, expected = base64.b64decode(match[4]), base64.b64decode(match[5])
    is_equal = hmac.compare_digest(_scrypt(password, salt, log_n, r, p), expected)
    return is_equal and user is not None


def load_users(path: Path) -> Users:
    """Reads the users in `path`; no users if the file does not exist. Raises UsersError."""
    users = documents.load_file(_parse_users, UsersError, path)
    return Users() if users is None else users


def parse_users(text: str, path: Path) -> Users:
    """Same as load_users(), from text; `path` is used only in errors. Raises UsersError, and no other exception for any
    text."""
    return documents.parse_file(_parse_users, UsersError, text, path)


def _parse_users(text: str, path: Path) -> Users:
    users = _validate(text, path, Users, User, UsersError, EXPECTED_IN_USERS)
    if not users.users:
        raise UsersError(
            path, ["has no users. Add a user with `manyeyes user NAME`, or delete the file to disable the login"]
        )
    if problems := list(find_repeated([user.name for user in users.users], "users")):
        raise UsersError(path, problems)
    return users


def set_password(path: Path, name: str, password: str) -> bool:
    """Writes the hash of the password to `path`. Returns whether the user is new. Raises UsersError."""
    users = load_users(path)
    if len(password) < MIN_PASSWORD_LENGTH:
        raise UsersError(path, [f"the password is too short: expected at least {MIN_PASSWORD_LENGTH} characters"])
    try:
        new_user = User(name=name, password=hash_password(password))
    except ValidationError as error:
        raise UsersError(path, [f"name: expected {NAME}, got {name!r}"]) from error
    other_users = [user for user in users.users if user.name != name]
    document = {"users": [user.model_dump() for user in (*other_users, new_user)]}
    _write(path, USERS_HEAD, document)
    return len(other_users) == len(users.users)


def _scrypt(password: str, salt: bytes, log_n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=2**log_n, r=r, p=p, maxmem=256 * 2**log_n * r * p, dklen=32)


def _validate(
    text: str,
    path: Path,
    model: type[FileModel],
    entry_type: type[Section],
    error: type[FileProblems],
    expected: Mapping[Any, str],
) -> FileModel:
    """Parses a file whose only top-level key, the first key of `expected`, is a list of named entries. Raises `error`."""
    section = next(iter(expected))
    try:
        document = documents.parse(text)
        return model.model_validate({} if document is None and model is ApiKeys else document)
    except DocumentError as problem:
        raise error(path, [f"cannot be read: {problem}"]) from problem
    except ValidationError as validation_error:
        details = validation_error.errors(include_url=False)
        raise error(
            path,
            [
                _problem(
                    documents.place_of(detail["loc"], document) or "the file", detail, entry_type, expected, section
                )
                for detail in details
            ],
        ) from validation_error


def _problem(
    place: str, error: ErrorDetails, entry_type: type[Section], expected: Mapping[Any, str], section: str
) -> str:
    """Describes one error without the value, which may be a secret written in place of its hash."""
    if error["type"] == "missing":
        return f"{place} is missing"
    if error["type"] == "extra_forbidden":
        return f"{place} is not a setting; the settings are {', '.join(entry_type.model_fields)}"
    last = error["loc"][-1] if error["loc"] else ""
    if isinstance(last, int):
        return f"{place}: expected an entry with {', '.join(entry_type.model_fields)}"
    return f"{place}: expected {expected.get(last, f'`{section}:` with a list of {section}')}"


def find_repeated(names: Sequence[str], section: str) -> Iterator[str]:
    """Yields one sentence for each duplicate name."""
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"{section} has {names.count(name)} entries named '{name}'; names must be unique"


def _case_collisions(names: Sequence[str], section: str) -> Iterator[str]:
    """Yields one sentence for each pair of names that differ only in case."""
    spellings: dict[str, str] = {}
    for name in dict.fromkeys(names):
        if (earlier := spellings.setdefault(name.lower(), name)) != name:
            yield (
                f"{section}[{earlier}] and {section}[{name}] differ only in case, and nginx ignores case; "
                "choose a different name"
            )


def _write(path: Path, head: str, document: Mapping[str, Any]) -> None:
    """Writes `document` below the comment `head`. The file is replaced atomically and is private."""
    is_new = not path.exists()
    atomic_write(path, head + yaml.safe_dump(document, sort_keys=False))
    checkout.grant_container_access(path, is_new=is_new)
